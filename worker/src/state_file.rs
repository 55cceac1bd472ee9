//! Files that are whole at any moment, and readable by nobody else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Puts `content` in the place of the file: after a crash either the old or the new content is there. Mode 0600.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let draft = path.with_extension("tmp");
    // One left over by a crash may have been made with another mode.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let replaced = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&draft, path));
    if let Err(error) = replaced {
        // Half of it is of no use, and takes room on a disk that has none; the error that counts is the first.
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    // Without this the rename itself may be lost with the power.
    File::open(directory)?.sync_all()
}
