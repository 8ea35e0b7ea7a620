//! What is used of tokio-uring. With musl it does not compile (0.5: its `msghdr` has other types), so that a static build has the
//! same calls from here, and each of them blocks the control thread, which has nothing else to do than what waits for it.

#[cfg(not(target_env = "musl"))]
pub(super) use tokio_uring::{Runtime, builder, fs, spawn};

#[cfg(target_env = "musl")]
pub(super) use blocking::{Runtime, builder, fs, spawn};

#[cfg(target_env = "musl")]
mod blocking {
    use std::io;

    use tokio::runtime;
    use tokio::task::{JoinHandle, LocalSet};

    /// It has no settings.
    pub(crate) struct Builder;

    impl Builder {
        pub(crate) const fn entries(&mut self, _entries: u32) -> &mut Self {
            self
        }
    }

    pub(crate) const fn builder() -> Builder {
        Builder
    }

    /// Tasks on one thread.
    pub(crate) struct Runtime {
        tasks: LocalSet,
        runtime: runtime::Runtime,
    }

    impl Runtime {
        pub(crate) fn new(_builder: &Builder) -> io::Result<Self> {
            let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
            Ok(Self { tasks: LocalSet::new(), runtime })
        }

        pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
            self.tasks.block_on(&self.runtime, future)
        }
    }

    pub(crate) fn spawn<F: Future<Output: 'static> + 'static>(task: F) -> JoinHandle<F::Output> {
        tokio::task::spawn_local(task)
    }

    pub(crate) mod fs {
        use std::os::unix::fs::{FileExt as _, OpenOptionsExt};
        use std::path::Path;
        use std::{fs, io};

        use rustix::fs::FallocateFlags;

        pub(crate) struct OpenOptions(fs::OpenOptions);

        impl OpenOptions {
            pub(crate) fn new() -> Self {
                Self(fs::OpenOptions::new())
            }

            pub(crate) fn write(&mut self, write: bool) -> &mut Self {
                self.0.write(write);
                self
            }

            pub(crate) fn create(&mut self, create: bool) -> &mut Self {
                self.0.create(create);
                self
            }

            pub(crate) fn truncate(&mut self, truncate: bool) -> &mut Self {
                self.0.truncate(truncate);
                self
            }

            pub(crate) async fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
                self.0.open(path).map(File)
            }
        }

        impl OpenOptionsExt for OpenOptions {
            fn mode(&mut self, mode: u32) -> &mut Self {
                self.0.mode(mode);
                self
            }

            fn custom_flags(&mut self, flags: i32) -> &mut Self {
                self.0.custom_flags(flags);
                self
            }
        }

        pub(crate) struct File(fs::File);

        impl File {
            pub(crate) async fn open(path: impl AsRef<Path>) -> io::Result<Self> {
                fs::File::open(path).map(Self)
            }

            pub(crate) async fn write_all_at(&self, bytes: Vec<u8>, at: u64) -> (io::Result<()>, Vec<u8>) {
                (self.0.write_all_at(&bytes, at), bytes)
            }

            /// Reads what there is room for.
            pub(crate) async fn read_at(&self, mut bytes: Vec<u8>, at: u64) -> (io::Result<usize>, Vec<u8>) {
                bytes.resize(bytes.capacity(), 0);
                let result = self.0.read_at(&mut bytes, at);
                bytes.truncate(*result.as_ref().unwrap_or(&0));
                (result, bytes)
            }

            pub(crate) async fn sync_data(&self) -> io::Result<()> {
                self.0.sync_data()
            }

            pub(crate) async fn sync_all(&self) -> io::Result<()> {
                self.0.sync_all()
            }

            /// `flags` are those of `fallocate(2)`.
            pub(crate) async fn fallocate(&self, at: u64, bytes: u64, flags: i32) -> io::Result<()> {
                let flags = FallocateFlags::from_bits_retain(flags.cast_unsigned());
                Ok(rustix::fs::fallocate(&self.0, flags, at, bytes)?)
            }
        }

        pub(crate) async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
            fs::rename(from, to)
        }

        pub(crate) async fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
            fs::remove_file(path)
        }
    }
}
