//! `health`: whether a server on this machine is well, for those who have no HTTP client at hand: containers, scripts.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use super::Failure;
use super::serve::first_of;
use crate::config::Loader;

/// What `--help` ends with.
const AFTER_HELP: &str = "\
It asks the admin listener, which it finds as `serve` does: in the configuration file, the environment \
(HOLDLINE_ADMIN) or its flag.

Exit status: 0 when all is well, 1 when not, 2 for bad arguments or configuration.";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Ask whether it takes clients in, not only whether it runs
    #[arg(long)]
    ready: bool,
    /// The file that the server was given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where its admin listener is [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

/// Time for each step of asking.
const TIME: Duration = Duration::from_secs(2);
/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 4096;

impl Args {
    /// Where to ask.
    fn address(&self, environment: std::env::VarsOs) -> Result<SocketAddr, Failure> {
        let mut loader = Loader::new();
        if let Some(path) = &self.config {
            loader.file(path);
        }
        loader.environment(environment);
        if let Some(address) = &self.admin {
            loader.flag("--admin", "admin", address);
        }
        // Who may come is the server's matter. It may know keys from a file that is not named here, as in a container whose
        // environment has its listeners.
        loader.flag("health", "insecure", "true");
        let config = loader.finish().map_err(|problems| Failure::usage(first_of(&problems)))?;
        let address = config.admin.filter(|address| address.port() != 0);
        address.map(reachable).ok_or_else(|| {
            Failure::usage(
                "the admin listener is off or on a port unknown, in the configuration: give it one, or --admin",
            )
        })
    }
}

/// A server that listens on all addresses is found on the loopback one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Asks, and prints what was answered.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let address = args.address(std::env::vars_os())?;
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = ask(address, path).map_err(|error| {
        Failure::runtime(format_args!("no answer: {error}, http://{address}{path}: is a server running there?"))
    })?;
    let (status, body) = read(&answer).ok_or_else(|| {
        Failure::runtime(format_args!("no HTTP in the answer, http://{address}{path}: name holdline's admin listener"))
    })?;
    let _ = writeln!(std::io::stdout(), "{body}");
    if status == 200 {
        return Ok(());
    }
    Err(Failure::runtime(format_args!("not well: {status} {body}, http://{address}{path}: see the server's log")))
}

fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIME)?;
    stream.set_read_timeout(Some(TIME))?;
    stream.set_write_timeout(Some(TIME))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// An answer's status and the first line of its body.
fn read(answer: &str) -> Option<(u16, &str)> {
    let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.lines().next().unwrap_or_default().trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert_eq!(read("HTTP/1.1 200 OK\r\nA: b\r\n\r\nok\n"), Some((200, "ok")));
        assert_eq!(read("HTTP/1.1 503 Service Unavailable\r\n\r\ndraining"), Some((503, "draining")));
        for bad in ["", "SSH-2.0-x\r\n", "HTTP/1.1 20", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_addresses_include_the_loopback() {
        let reach = |address: &str| address.parse().map(|address| reachable(address).to_string());
        assert_eq!(reach("0.0.0.0:9090"), Ok("127.0.0.1:9090".to_owned()));
        assert_eq!(reach("[::]:9090"), Ok("[::1]:9090".to_owned()));
        assert_eq!(reach("10.0.0.1:9090"), Ok("10.0.0.1:9090".to_owned()));
    }
}
