//! Files of a directory as pages.
//!
//! [`Files`] finds a file below its root, with the siblings that hold it compressed, and answers conditions and ranges.
//! Small files are kept in memory and compared with the disk once a second; a page of a larger one is a [`Slice`] of the
//! open file, which whoever serves it sends with a [`Transfer`].
//!
//! Nothing leads out of the root: the kernel resolves every path beneath it (`openat2`, Linux 5.6). Names that begin
//! with a dot are not served, but for `/.well-known/`.

mod cache;
pub(super) mod conditions;
mod encoding;
mod entry;
mod open;
mod path;
mod range;
mod reader;
#[cfg(test)]
mod testing;
mod transfer;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use self::cache::Cache;
use self::entry::Entry;
use self::open::{Found, Root};
use super::site::{Body, Fields, Page, PageRequest, Site};

pub use self::open::{Opened, Read, Stamp};
pub use self::reader::{Desk, Done, Job, Reader};
pub use self::transfer::{Step, Transfer};

/// Part of an open file.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The file.
    pub file: Arc<Opened>,
    /// Where it begins.
    pub start: u64,
    /// Bytes in it.
    pub length: u64,
    /// Who reads what is not in memory.
    pub reader: Reader,
}

/// The site of a directory.
#[derive(Debug)]
pub struct Files {
    root: Root,
    reader: Reader,
    cache: Cache<Entry>,
}

impl Files {
    /// Small files that are kept in memory.
    const CACHED_MAX: usize = 4096;
    /// Bytes of them.
    const CACHED_BYTES_MAX: usize = 16 * 1024 * 1024;
    /// How long one is served without a look at the disk.
    const FRESH_MS: u64 = 1000;

    /// Serves what is below `root`. Starts the thread for slow reads.
    ///
    /// # Errors
    /// When it is no directory that can be read, or the kernel cannot confine paths to it.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = Root::open(root)?;
        let cache = Cache::new(Self::CACHED_MAX, Self::CACHED_BYTES_MAX);
        Ok(Self { root, reader: Reader::start()?, cache })
    }

    /// What is not in memory, or not fresh.
    fn load(&self, key: &str, request: &PageRequest<'_>) -> Option<Page> {
        let is_directory = key.is_empty() || key.ends_with('/');
        let path = if is_directory { format!("{key}index.html") } else { key.to_owned() };
        match self.root.find(&path)? {
            Found::File(file) => {
                let entry = Entry::load(&self.root, path, file, request.now.as_millis());
                let page = entry.page(request, &self.reader);
                if entry.is_small() {
                    self.cache.put(key, Arc::new(entry));
                }
                page
            }
            Found::Directory if is_directory => None,
            Found::Directory => Some(redirect(request)),
        }
    }
}

impl Site for Files {
    fn get(&self, request: &PageRequest<'_>) -> Option<Page> {
        let key = path::relative(request.path)?;
        if let Some(entry) = self.cache.get(key) {
            if entry.is_fresh(&self.root, request.now.as_millis(), Self::FRESH_MS) {
                return entry.page(request, &self.reader);
            }
            self.cache.remove(key);
        }
        self.load(key, request)
    }

    fn memory(&self) -> usize {
        self.cache.bytes()
    }
}

/// To the directory's own path, with its slash: relative links in its page need it.
fn redirect(request: &PageRequest<'_>) -> Page {
    let query = if request.raw_query.is_empty() { String::new() } else { format!("?{}", request.raw_query) };
    let mut fields = Fields::default();
    fields.add("Location", &format!("{}/{query}", path::encode(request.path)));
    fields.add("Cache-Control", "no-cache");
    Page { status: 308, fields: fields.into(), body: Body::Bytes(Bytes::new()) }
}
