#![no_main]

fuzz::program!(columns);
