#![no_main]

fuzz::program!(device);
