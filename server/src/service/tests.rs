//! The use cases over the memory store.

mod lines;
mod links;
mod pages;
mod pushes;
mod requests;
mod world;
