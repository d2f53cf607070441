/// What an archive may ask for at most. The defaults let through every image seen and keep memory below 100 MiB.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of file content as stored in the archive (holes of sparse files do not count). `None`: as the disk allows.
    pub total_bytes: Option<u64>,
    pub entries: u64,
    /// Bytes of one PAX extended header.
    pub pax_bytes: u64,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Bytes of one extended attribute; the kernel takes 64 KiB (`XATTR_SIZE_MAX`).
    pub xattr_bytes: usize,
    /// Bytes of a name or a link target; the kernel takes 4096 (`PATH_MAX`).
    pub path_bytes: usize,
    /// Components of a name.
    pub depth: usize,
    /// Data segments of one sparse file, 16 bytes of memory each.
    pub sparse_segments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: None,
            entries: 20_000_000,
            pax_bytes: 1 << 20,
            xattrs: 1024,
            xattr_bytes: 64 << 10,
            path_bytes: 4096,
            depth: 1024,
            sparse_segments: 1 << 20,
        }
    }
}
