//! `/v1/agent/host`: what the machine is, as the kernel tells it (proc(5)), in the shape of Consul's API.

use std::fs::read_to_string;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Everything about the machine. What cannot be found out is zero or empty and named among the errors.
#[must_use]
pub fn describe() -> Value {
    let mut errors = Vec::new();
    let mut read = |path: &str| {
        read_to_string(path).unwrap_or_else(|error| {
            errors.push(format!("{path}: {error}"));
            String::new()
        })
    };
    let memory = memory(&read("/proc/meminfo"));
    let cpu = processors(&read("/proc/cpuinfo"));
    let host = host(&read("/proc/uptime"), &read("/proc/sys/kernel/random/boot_id"));
    let mounts = read("/proc/mounts");
    let disk = disk(Path::new("/"), &mounts).unwrap_or_else(|error| {
        errors.push(format!("/: {error}"));
        Value::Null
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    json!({
        "Memory": memory,
        "CPU": cpu,
        "Host": host,
        "Disk": disk,
        "CollectionTime": u64::try_from(now).unwrap_or(u64::MAX),
        "Errors": if errors.is_empty() { Value::Null } else { Value::from(errors) },
    })
}

fn memory(meminfo: &str) -> Value {
    let bytes = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or(0) * 1024
    };
    let (total, free, buffers) = (bytes("MemTotal"), bytes("MemFree"), bytes("Buffers"));
    let cached = bytes("Cached") + bytes("SReclaimable");
    let used = total.saturating_sub(free + buffers + cached);
    let mut memory = json!({
        "total": total,
        "available": bytes("MemAvailable"),
        "used": used,
        "usedPercent": percent(used, total),
        "free": free,
        "buffers": buffers,
        "cached": cached,
    });
    for (name, key) in [
        ("active", "Active"),
        ("inactive", "Inactive"),
        ("writeback", "Writeback"),
        ("dirty", "Dirty"),
        ("shared", "Shmem"),
        ("slab", "Slab"),
        ("sreclaimable", "SReclaimable"),
        ("sunreclaim", "SUnreclaim"),
        ("pagetables", "PageTables"),
        ("swapcached", "SwapCached"),
        ("commitlimit", "CommitLimit"),
        ("committedas", "Committed_AS"),
        ("swaptotal", "SwapTotal"),
        ("swapfree", "SwapFree"),
        ("mapped", "Mapped"),
        ("vmalloctotal", "VmallocTotal"),
        ("vmallocused", "VmallocUsed"),
    ] {
        memory[name] = bytes(key).into();
    }
    memory
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

fn processors(cpuinfo: &str) -> Vec<Value> {
    let one = |block: &str| {
        let text = |key: &str| {
            let line = block.lines().filter_map(|line| line.split_once(':'));
            let mut fitting = line.filter(|(name, _)| name.trim() == key);
            fitting.next().map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let number = |key: &str| text(key).parse::<u64>().unwrap_or(0);
        json!({
            "cpu": number("processor"),
            "vendorId": text("vendor_id"),
            "family": text("cpu family"),
            "model": text("model"),
            "stepping": number("stepping"),
            "physicalId": text("physical id"),
            "coreId": text("core id"),
            "cores": 1,
            "modelName": text("model name"),
            "mhz": text("cpu MHz").parse::<f64>().unwrap_or(0.0),
            "cacheSize": text("cache size").trim_end_matches(" KB").parse::<u64>().unwrap_or(0),
            "flags": text("flags").split_whitespace().collect::<Vec<_>>(),
            "microcode": text("microcode"),
        })
    };
    cpuinfo.split("\n\n").filter(|block| block.contains("processor")).map(one).collect()
}

fn host(uptime: &str, boot_id: &str) -> Value {
    let uname = rustix::system::uname();
    let release = read_to_string("/etc/os-release").unwrap_or_default();
    let of_release = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned()).unwrap_or_default()
    };
    let uptime = uptime.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok()).unwrap_or(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let processes = std::fs::read_dir("/proc").map_or(0, |entries| {
        let named = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        named.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).count()
    });
    let family = of_release("ID_LIKE").split_whitespace().next().map(str::to_owned);
    let platform = of_release("ID");
    json!({
        "hostname": uname.nodename().to_string_lossy(),
        "uptime": uptime,
        "bootTime": now.saturating_sub(uptime),
        "procs": processes,
        "os": std::env::consts::OS,
        "platform": platform,
        "platformFamily": family.unwrap_or_else(|| platform.clone()),
        "platformVersion": of_release("VERSION_ID"),
        "kernelVersion": uname.release().to_string_lossy(),
        "kernelArch": uname.machine().to_string_lossy(),
        "virtualizationSystem": "",
        "virtualizationRole": "",
        "hostid": boot_id.trim(),
    })
}

fn disk(path: &Path, mounts: &str) -> Result<Value, rustix::io::Errno> {
    let stat = rustix::fs::statvfs(path)?;
    let (total, free) = (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize);
    let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
    let inodes_used = stat.f_files - stat.f_ffree;
    let mut kind = mounts.lines().filter_map(|line| {
        let mut parts = line.split(' ').skip(1);
        (parts.next()? == "/").then(|| parts.next()).flatten()
    });
    Ok(json!({
        "path": path,
        "fstype": kind.next_back().unwrap_or_default(),
        "total": total,
        "free": free,
        "used": used,
        "usedPercent": percent(used, used + free),
        "inodesTotal": stat.f_files,
        "inodesUsed": inodes_used,
        "inodesFree": stat.f_ffree,
        "inodesUsedPercent": percent(inodes_used, stat.f_files),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_become_numbers() {
        let memory = memory("MemTotal:  1000 kB\nMemFree: 200 kB\nBuffers: 100 kB\nCached: 200 kB\n");
        assert_eq!((&memory["total"], &memory["used"]), (&json!(1_024_000), &json!(512_000)));
        assert_eq!(memory["usedPercent"], json!(50.0));
        let cpu = processors("processor\t: 0\nmodel name\t: X\nflags\t: a b\n\nprocessor\t: 1\n\n");
        assert_eq!((cpu.len(), &cpu[0]["flags"]), (2, &json!(["a", "b"])));
    }

    #[test]
    fn this_machine_can_be_described() {
        let all = describe();
        assert!(all["Memory"]["total"].as_u64() > Some(0), "{all}");
        assert!(all["Disk"]["total"].as_u64() > Some(0), "{all}");
        assert_eq!(all["Errors"], Value::Null);
    }
}
