//! End-to-end tests: real sockets, and real processes where a process is what matters.

mod bench;
mod bench_trouble;
mod commands;
mod connection;
mod exec_ends;
mod exec_jobs;
mod exec_many;
mod exec_shell;
mod exec_streams;
mod exec_terminal;
mod file_mounts;
mod file_server;
mod files;
mod files_here;
mod files_names;
mod files_resume;
mod files_sync;
mod files_trees;
mod knocks;
mod lifecycle;
mod log;
mod programs;
mod readme;
mod shell_server;
mod support;
mod vectors;
