#![no_main]

fuzz::program!(pull);
