//! What is left when all is over: nothing.
