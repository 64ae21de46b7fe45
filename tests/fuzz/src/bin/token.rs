#![no_main]

fuzz::program!(token);
