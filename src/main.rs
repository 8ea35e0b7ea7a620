//! temporary
fn main() {
    let mut c = holdline::config::Config::default();
    let a: Vec<String> = std::env::args().collect();
    c.backend = if a.get(1).is_some_and(|s| s == "epoll") {
        holdline::config::BackendChoice::Epoll
    } else {
        holdline::config::BackendChoice::Uring
    };
    c.shards = a.get(2).map_or(2, |s| s.parse().unwrap());
    c.limits.connections_max = a.get(3).map_or(10000, |s| s.parse().unwrap());
    c.limits.message_bytes_max = 33554432;
    let s = holdline::server::Server::start(&c, holdline::app::standard_routes()).unwrap();
    for l in s.listening() {
        println!("listening on {l}");
    }
    println!("ready");
    s.wait().unwrap();
}
