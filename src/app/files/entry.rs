//! A file with its encoded siblings, and the pages that they make.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::Slice;
use super::cache::Weigh;
use super::conditions::{self, Validators, Verdict};
use super::encoding::{self, Encoding};
use super::open::{Found, Opened, Read, Root, Stamp};
use super::range::{self, Range};
use super::reader::Reader;
use crate::app::site::{Body, Fields, Page, PageRequest};

/// One encoding of a file.
#[derive(Debug)]
struct Variant {
    stamp: Stamp,
    etag: String,
    /// All fields of a 200.
    fields: Bytes,
    /// Those of a 304.
    fields_unmodified: Bytes,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Memory(Bytes),
    Open(Arc<Opened>),
}

/// A file in all its encodings.
#[derive(Debug)]
pub(super) struct Entry {
    /// The file's own path below the root.
    path: String,
    /// In the order of [`Encoding::ALL`].
    variants: [Option<Variant>; 3],
    /// Milliseconds on the site's clock when it was last compared with the disk.
    pub(super) checked_ms: AtomicU64,
}

impl Weigh for Entry {
    fn weight(&self) -> usize {
        /// Keys, tags, the tables' own.
        const OVERHEAD: usize = 1024;
        let variants = self.variants.iter().flatten();
        let bytes = variants.map(|variant| match &variant.content {
            Content::Memory(bytes) => bytes.len() + variant.fields.len() + variant.fields_unmodified.len(),
            Content::Open(_) => 0,
        });
        OVERHEAD + self.path.len() + bytes.sum::<usize>()
    }
}

impl Entry {
    /// Files up to this size are read at once.
    const SMALL_BYTES_MAX: u64 = 64 * 1024;

    /// Makes an entry of an open file, and opens its siblings.
    pub(super) fn load(root: &Root, path: String, file: Opened, now_ms: u64) -> Self {
        let sibling = |encoding: Encoding| match root.find(&format!("{path}{}", encoding.suffix())) {
            Some(Found::File(file)) => Some(file),
            _ => None,
        };
        let [brotli, gzip] = [Encoding::Brotli, Encoding::Gzip].map(sibling);
        let varies = brotli.is_some() || gzip.is_some();
        let mut files = [brotli, gzip, Some(file)].into_iter();
        let variants = Encoding::ALL
            .map(|encoding| files.next().flatten().map(|file| Variant::load(&path, encoding, file, varies)));
        Self { path, variants, checked_ms: AtomicU64::new(now_ms) }
    }

    /// Whether all of it is in memory.
    pub(super) fn is_small(&self) -> bool {
        self.variants.iter().flatten().all(|variant| matches!(variant.content, Content::Memory(_)))
    }

    /// Whether what is on the disk is still this. It is looked at only once within `period_ms`, by one thread.
    pub(super) fn is_fresh(&self, root: &Root, now_ms: u64, period_ms: u64) -> bool {
        let checked = self.checked_ms.load(Ordering::Relaxed);
        if now_ms < checked.saturating_add(period_ms) {
            return true;
        }
        if self.checked_ms.compare_exchange(checked, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return true;
        }
        Encoding::ALL.iter().zip(&self.variants).all(|(encoding, variant)| {
            let stamp = root.stamp(&format!("{}{}", self.path, encoding.suffix()));
            stamp == variant.as_ref().map(|variant| variant.stamp)
        })
    }

    fn variant(&self, encoding: Encoding) -> Option<&Variant> {
        Encoding::ALL.iter().zip(&self.variants).find(|(other, _)| **other == encoding)?.1.as_ref()
    }

    /// The page that answers a request.
    pub(super) fn page(&self, request: &PageRequest<'_>, reader: &Reader) -> Option<Page> {
        let encoding = encoding::choose(request.accept_encoding, |encoding| self.variant(encoding).is_some());
        let variant = self.variant(encoding)?;
        let validators = variant.validators();
        match conditions::judge(request, validators) {
            Verdict::NotModified => return Some(variant.empty(304)),
            Verdict::Failed => return Some(variant.empty(412)),
            Verdict::Go => {}
        }
        let size = variant.stamp.size;
        let range = request.range.filter(|_| !request.head_only);
        let range = range.filter(|_| conditions::range_counts(request.if_range, validators));
        Some(match range.map_or(Range::Whole, |field| range::read(field, size)) {
            Range::Whole => variant.page(200, variant.fields.clone(), 0, size, reader),
            Range::Part { start, length } => {
                let fields = with(&variant.fields, &format!("bytes {start}-{}/{size}", start + length - 1));
                variant.page(206, fields, start, length, reader)
            }
            Range::Unsatisfiable => {
                let fields = with(&variant.fields_unmodified, &format!("bytes */{size}"));
                Page { status: 416, fields, body: Body::Bytes(Bytes::new()) }
            }
        })
    }
}

/// Fields with a `Content-Range`.
fn with(fields: &[u8], content_range: &str) -> Bytes {
    let mut all = Fields::from_lines(fields);
    all.add("Content-Range", content_range);
    all.into()
}

impl Variant {
    /// Reads a small file. The path is that of the file itself, whose type a sibling has too.
    fn load(path: &str, encoding: Encoding, file: Opened, varies: bool) -> Self {
        let stamp = file.stamp;
        let etag = etag(stamp, encoding);
        let mut short = Fields::default();
        short.add("ETag", &etag);
        if let Some(date) = modified(stamp).and_then(conditions::http_date) {
            short.add("Last-Modified", &date);
        }
        if varies {
            short.add("Vary", "Accept-Encoding");
        }
        short.add("Cache-Control", "no-cache");
        let mut fields = Fields::default();
        fields.add("Content-Type", &content_type(path));
        if let Some(token) = encoding.token() {
            fields.add("Content-Encoding", token);
        }
        fields.add("Accept-Ranges", "bytes");
        fields.add("X-Content-Type-Options", "nosniff");
        let fields_unmodified = Bytes::from(short);
        fields.add_lines(&fields_unmodified);
        Self { stamp, etag, fields: fields.into(), fields_unmodified, content: Content::load(file) }
    }

    fn validators(&self) -> Validators<'_> {
        Validators { etag: self.etag.as_bytes(), modified: modified(self.stamp) }
    }

    fn empty(&self, status: u16) -> Page {
        Page { status, fields: self.fields_unmodified.clone(), body: Body::Bytes(Bytes::new()) }
    }

    fn page(&self, status: u16, fields: Bytes, start: u64, length: u64, reader: &Reader) -> Page {
        let body = match &self.content {
            Content::Memory(bytes) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Body::Bytes(bytes.slice(place(start)..place(start + length)))
            }
            Content::Open(file) => Body::File(Slice { file: Arc::clone(file), start, length, reader: reader.clone() }),
        };
        Page { status, fields, body }
    }
}

impl Content {
    fn load(file: Opened) -> Self {
        let size = file.stamp.size;
        if size > Entry::SMALL_BYTES_MAX {
            return Self::Open(Arc::new(file));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let read = match file.read_now(&mut bytes, 0) {
            Read::Cold => file.read_slowly(&mut bytes, 0),
            read => read,
        };
        // One that changes right now is read again when it is sent, and found out then.
        if read == Read::Whole { Self::Memory(bytes.into()) } else { Self::Open(Arc::new(file)) }
    }
}

/// Strong: two states of a file with the same size and the same time to the nanosecond are the same.
fn etag(stamp: Stamp, encoding: Encoding) -> String {
    let (seconds, nanos) = stamp.modified;
    let encoding = encoding.token().map_or(String::new(), |token| format!("-{token}"));
    format!("\"{seconds:x}.{nanos:x}-{:x}{encoding}\"", stamp.size)
}

fn modified(stamp: Stamp) -> Option<u64> {
    u64::try_from(stamp.modified.0).ok()
}

/// The MIME type by the name's extension; texts are taken to be UTF-8.
fn content_type(path: &str) -> String {
    let name = mime_guess::from_path(path).first_raw().unwrap_or("application/octet-stream");
    let is_text = name.starts_with("text/") || matches!(name, "application/javascript" | "image/svg+xml");
    if is_text { format!("{name}; charset=utf-8") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_the_extension() {
        for (path, name) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("b/a.js", "text/javascript; charset=utf-8"),
            ("a.svg", "image/svg+xml; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.wasm", "application/wasm"),
            ("a.PNG", "image/png"),
            ("a", "application/octet-stream"),
            ("a.nothing", "application/octet-stream"),
        ] {
            assert_eq!(content_type(path), name, "{path}");
        }
    }
}
