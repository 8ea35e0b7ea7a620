//! Imports go down only, as `src/lib.rs` draws it. This reads every `crate::` path under `src` and compares the layers
//! of both ends.
//!
//! Code under `#[cfg(test)]` may import what it likes, and so may `lib.rs` and `main.rs`, which see everything.

use std::fs;
use std::path::{Path, PathBuf};

/// Bottom first. A module that has its own line is not part of its parent's layer.
const LAYERS: &[&[&str]] = &[
    &["access", "time", "close", "rate", "rule", "config", "metrics", "host"],
    &["id", "wheel"],
    &["codec", "io"],
    // Messages carry encoded frames; a mailbox wakes through the port.
    &["message", "mailbox"],
    // Outgoing queues hold images of messages, the hub hands messages out, sessions say what kind they are.
    // A journal says what the hub goes on with.
    &["buf", "hub", "session", "journal", "cluster", "hooks"],
    &["app"],
    &["shard"],
    &["io::epoll", "io::proxy", "io::tls", "io::tun", "io::uring", "sim"],
    // A crowd of clients knows nothing of the server that it loads.
    &["server", "swarm", "doctor", "logging"],
    &["cli"],
];

/// The layer of a path such as `io::epoll::Config`: that of its longest listed prefix.
fn layer(path: &str) -> Option<usize> {
    let is_prefix =
        |module: &str| path == module || path.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"));
    let listed =
        LAYERS.iter().enumerate().flat_map(|(layer, modules)| modules.iter().map(move |module| (layer, *module)));
    listed.filter(|(_, module)| is_prefix(module)).max_by_key(|(_, module)| module.len()).map(|(layer, _)| layer)
}

/// `src/io/epoll/mod.rs` is `io::epoll`.
fn module(file: &Path, src: &Path) -> String {
    let inside = file.strip_prefix(src).unwrap_or(file).with_extension("");
    let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).filter(|part| part != "mod").collect();
    parts.join("::")
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    for path in entries.map(|entry| entry.expect("so can its entries").path()) {
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// What is compiled outside of tests, without comments.
fn code_without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("#[cfg(test)]") || line.trim_start().starts_with("#[cfg(all(test") {
            skip_item(&mut lines);
        } else {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// Passes over the item that an attribute is about: to its semicolon, or to its last brace.
fn skip_item<'a>(lines: &mut impl Iterator<Item = &'a str>) {
    let (mut opened, mut closed) = (0, 0);
    for line in lines {
        opened += line.matches('{').count();
        closed += line.matches('}').count();
        let is_attribute = line.trim_start().starts_with("#[");
        if opened == closed && !is_attribute && (opened > 0 || line.contains(';')) {
            return;
        }
    }
}

/// Every path behind a `crate::`, with `{...}` written out.
fn imports(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let is_start = |at: &usize| !code[..*at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
    for (at, start) in code.match_indices("crate::").filter(|(at, _)| is_start(at)) {
        expand("", &code[at + start.len()..], &mut paths);
    }
    paths
}

/// Reads one import tree, adds its paths to `paths`, and returns what follows it.
fn expand<'a>(prefix: &str, tree: &'a str, paths: &mut Vec<String>) -> &'a str {
    let tree = tree.trim_start();
    if let Some(mut rest) = tree.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            match rest.strip_prefix('}') {
                Some(after) => return after,
                None if rest.is_empty() => return rest,
                None => {
                    let before = rest.len();
                    rest = expand(prefix, rest, paths);
                    // Whatever is not a path ( `as name`, `*` ) is passed over by a character at a time.
                    if rest.len() == before {
                        let mut chars = rest.chars();
                        chars.next();
                        rest = chars.as_str();
                    }
                }
            }
        }
    }
    let end = tree.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tree.len());
    let (name, rest) = tree.split_at(end);
    if name.is_empty() {
        if tree.starts_with('*') {
            paths.push(prefix.to_owned());
        }
        return tree;
    }
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    match rest.strip_prefix("::") {
        Some(rest) if !rest.starts_with('<') => expand(&path, rest, paths),
        _ => {
            paths.push(path);
            rest
        }
    }
}

#[test]
fn imports_go_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let importer = module(&file, &src);
        if ["lib", "main"].contains(&importer.as_str()) || importer.split("::").any(|part| part == "tests") {
            continue;
        }
        let Some(here) = layer(&importer) else {
            wrong.push(format!("{importer} has no layer: give it one in tests/layering.rs"));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source file can be read");
        for imported in imports(&code_without_tests(&text)) {
            match layer(&imported) {
                Some(there) if there <= here => {}
                Some(_) => wrong.push(format!("{importer} imports {imported} from above")),
                None => wrong.push(format!("{importer} imports {imported}, which has no layer")),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// What peers can cause is rationed where it is said.
#[test]
fn shards_and_what_is_below_them_log_in_three_places() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let logs = |code: &str| {
        ["error", "warn", "info", "debug", "trace"].iter().any(|level| code.contains(&format!("tracing::{level}!")))
    };
    let mut found: Vec<String> = Vec::new();
    for file in files {
        let name = module(&file, &src);
        let text = fs::read_to_string(&file).expect("a source file can be read");
        if layer(&name) <= layer("shard") && name != "lib" && name != "main" && logs(&code_without_tests(&text)) {
            found.push(name);
        }
    }
    found.sort();
    assert_eq!(found, ["shard::log", "shard::spans", "shard::visits"]);
}

#[test]
fn a_path_belongs_to_its_longest_listed_prefix() {
    assert_eq!(layer("io::Backend"), layer("codec::line"));
    assert_eq!(layer("io::epoll::Config"), layer("sim"));
    assert_eq!(layer("identity"), None);
}

#[test]
fn trees_are_written_out() {
    let code = "use crate::{id::{ConnId, ShardId as Shard}, io::*, time};\nlet a = crate::close::CloseReason::Normal;";
    let found = imports(code);
    for path in ["id::ConnId", "id::ShardId", "io", "time", "close::CloseReason::Normal"] {
        assert!(found.iter().any(|found| found == path), "{path} is not in {found:?}");
    }
}

#[test]
fn tests_and_comments_do_not_count() {
    let text = "// crate::cli\nuse crate::id; // crate::cli\n#[cfg(test)]\nuse crate::cli;\n\
                #[cfg(test)]\n#[allow(x)]\nmod tests {\n  fn a() { crate::cli::run() }\n}\nuse crate::time;";
    assert_eq!(imports(&code_without_tests(text)), ["id", "time"]);
}
