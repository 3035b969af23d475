//! The name by which a program was started, where its file has another: one file may be many programs.
//!
//! `redis-server` is a link to `redis-check-rdb`, `sleep` one to `busybox`. The kernel names a thread by the path that was executed,
//! the program's first argument is what the caller says; where both agree on a name that is not the file's, that is it. Refuses:
//! one of the two alone, either of which a program can choose, and a name that the file only adds a version to (`python3`).

/// Bytes of a thread's name (`TASK_COMM_LEN` without its zero).
const COMM_BYTES_MAX: usize = 15;

/// What names a process's service, by the name of its file, of its main thread, and its arguments, each ended by a zero.
pub fn name<'a>(executable: &'a str, comm: &str, arguments: &'a [u8]) -> &'a str {
    let Some(invoked) = first_word(arguments) else { return executable };
    let agrees = if comm.len() < COMM_BYTES_MAX { invoked == comm } else { invoked.starts_with(comm) };
    let is_other = !executable.starts_with(invoked);
    if agrees && is_other { invoked } else { executable }
}

/// The file name that the first argument begins with: some programs write what they do behind it.
fn first_word(arguments: &[u8]) -> Option<&str> {
    let argument = std::str::from_utf8(arguments.split(|byte| *byte == 0).next()?).ok()?;
    // Shells of a log-in have a hyphen in front (login(1)).
    let path = argument.split(' ').next()?.trim_start_matches('-');
    path.rsplit('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(executable: &str, comm: &str, arguments: &str, expected: &str) {
        assert_eq!(name(executable, comm, arguments.as_bytes()), expected, "{comm} {arguments:?}");
    }

    #[test]
    fn one_file_is_many_programs() {
        check("redis-check-rdb", "redis-server", "/usr/bin/redis-server\0--port\0", "redis-server");
        check("redis-check-rdb", "redis-server", "redis-server 127.0.0.1:6379\0", "redis-server");
        check("busybox", "sleep", "sleep\09\0", "sleep");
        check("multi", "a-rather-long-n", "/bin/a-rather-long-name\0", "a-rather-long-name");
        check("busybox", "sh", "-sh\0", "sh");
    }

    #[test]
    fn the_file_names_the_rest() {
        check("nginx", "nginx", "nginx: master process /usr/sbin/nginx\0", "nginx");
        check("python3.11", "python3", "/usr/bin/python3\0app.py\0", "python3.11");
        // A script, a thread that renamed itself, an argument of the caller's choice.
        check("python3.11", "app.py", "/usr/bin/python3\0./app.py\0", "python3.11");
        check("java", "redis-server", "java\0", "java");
        check("java", "java", "redis-server\0", "java");
        check("java", "", "", "java");
        check("java", "java", "\0", "java");
        check("java", "a-rather-long-n", "a\0", "java");
    }
}
