//! The use cases over the memory store.

mod fanout;
mod lines;
mod links;
mod pages;
mod pushes;
mod requests;
mod world;
