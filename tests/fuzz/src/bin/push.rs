#![no_main]

fuzz::program!(push);
