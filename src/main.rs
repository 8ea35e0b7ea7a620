//! The program; what it does is in [`holdline::cli`].

fn main() -> std::process::ExitCode {
    holdline::cli::main()
}
