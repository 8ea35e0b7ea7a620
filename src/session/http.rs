//! HTTP/1.1 up to the point where a connection becomes something else.
