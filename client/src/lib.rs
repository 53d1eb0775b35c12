//! Calls any plugin of a plugd server, from a program or from a shell.
