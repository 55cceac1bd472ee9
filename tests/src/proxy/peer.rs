//! Whose connection it is, as Linux tells: all clients of a fleet are on this machine.

use std::fs;
use std::net::SocketAddr;

/// The process that connects from `from` to `to`, if it can be found.
pub(super) fn process_of(from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let socket = format!("socket:[{}]", inode(from, to)?);
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|process| has(*process, &socket))
}

/// The number of the socket between the two: the tenth word of its line in the table.
fn inode(from: SocketAddr, to: SocketAddr) -> Option<u64> {
    let (from, to) = (in_table(from)?, in_table(to)?);
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_it = words.next() == Some(&from) && words.next() == Some(&to);
        if is_it { words.nth(6)?.parse().ok() } else { None }
    })
}

/// The address as the table writes it: the octets from the last to the first.
fn in_table(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let [a, b, c, d] = address.ip().octets();
    Some(format!("{d:02X}{c:02X}{b:02X}{a:02X}:{:04X}", address.port()))
}

fn has(process: u32, socket: &str) -> bool {
    // It may be gone meanwhile, or not ours to look at.
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket))
}
