//! Where the JSON goes: found out before the run, so that no hour of measuring ends at a path that cannot be written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cli::Failure;

/// Where the report is written.
#[derive(Debug)]
pub(super) enum Output {
    /// Nowhere.
    None,
    /// To standard output.
    Standard,
    /// To something that is no file of its own: a pipe, a terminal.
    Stream(File, PathBuf),
    /// To a file that replaces another at once when it is complete.
    File(Pending),
}

/// A file beside the one it will be. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Pending {
    file: File,
    beside: PathBuf,
    path: PathBuf,
}

impl Output {
    /// Opens it.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::None) };
        if path == Path::new("-") {
            return Ok(Self::Standard);
        }
        let unwritable = |error: io::Error| {
            let what = format_args!(
                "cannot write {}: {error}, flag --json: name a file in a folder that can be written",
                path.display()
            );
            Failure::usage(what)
        };
        let is_stream = fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
        if is_stream {
            let file = OpenOptions::new().write(true).open(path).map_err(unwritable)?;
            return Ok(Self::Stream(file, path.to_owned()));
        }
        Pending::create(path).map(Self::File).map_err(unwritable)
    }

    /// Writes it.
    pub(super) fn write(self, text: &str) -> Result<(), Failure> {
        let (result, place) = match self {
            Self::None => return Ok(()),
            Self::Standard => {
                let mut out = io::stdout().lock();
                (out.write_all(text.as_bytes()).and_then(|()| out.flush()), "standard output".to_owned())
            }
            Self::Stream(mut file, path) => (file.write_all(text.as_bytes()), path.display().to_string()),
            Self::File(pending) => {
                let place = pending.path.display().to_string();
                (pending.finish(text), place)
            }
        };
        result.map_err(|error| {
            Failure::runtime(format_args!("cannot write the report: {error}, {place}: make room there"))
        })
    }
}

impl Pending {
    fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().filter(|_| !path.is_dir()).ok_or(io::ErrorKind::IsADirectory)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let beside = path.with_file_name(hidden);
        // Whoever could write the folder but not the file that is there would find out at the end.
        if path.exists() {
            OpenOptions::new().append(true).open(path)?;
        }
        let file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
        Ok(Self { file, beside, path: path.to_owned() })
    }

    fn finish(mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        fs::rename(&self.beside, &self.path)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After a rename there is nothing by this name.
        let _ = fs::remove_file(&self.beside);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    /// A folder that is gone with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("holdline-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> =
                fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_replaced_at_once_and_only_when_it_is_complete() {
        let folder = Folder::new("replaced");
        let path = folder.0.join("report.json");
        fs::write(&path, "old").unwrap();
        let output = Output::open(Some(&path)).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), folder.names().len()), ("old", 2));
        output.write("new\n").unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), folder.names()),
            ("new\n", vec!["report.json".into()])
        );
    }

    #[test]
    fn a_run_that_ends_early_leaves_nothing() {
        let folder = Folder::new("early");
        drop(Output::open(Some(&folder.0.join("report.json"))).unwrap());
        assert_eq!(folder.names(), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_written_is_found_before_the_run() {
        let folder = Folder::new("unwritable");
        for path in [folder.0.clone(), folder.0.join("missing").join("report.json"), PathBuf::from("/")] {
            let failure = Output::open(Some(&path)).unwrap_err();
            assert_eq!(failure.status, 2);
            assert!(failure.line.contains("flag --json: name a file"), "{}", failure.line);
        }
    }

    #[test]
    fn a_device_is_not_replaced() {
        let output = Output::open(Some(Path::new("/dev/null"))).unwrap();
        assert!(matches!(output, Output::Stream(..)));
        output.write("{}").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
