#![no_main]

fuzz::program!(codec);
