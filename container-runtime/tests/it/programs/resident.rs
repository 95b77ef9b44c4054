//! The one program in the images of tests: does what its arguments say. Built by the tests themselves, without a crate.

use std::env;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread::park;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", port] => serve(port.parse().expect("a port")),
        ["exit", code] => std::process::exit(code.parse().expect("a code")),
        ["env", name] => println!("{name} is {}", env::var(name).unwrap_or_else(|_| "not set".to_owned())),
        ["count", most] => (0..most.parse::<u32>().expect("a number")).for_each(|number| println!("line {number}")),
        ["eat"] => eat(),
        ["write", path] => println!("{:?}", std::fs::write(path, "written").map_err(|error| error.kind())),
        ["status"] => print!("{}", std::fs::read_to_string("/proc/self/status").expect("a status")),
        _ => wait(),
    }
}

/// As the first process of a container it has no signal handler, so SIGTERM does not end it; under an init it does.
fn wait() {
    println!("waiting");
    eprintln!("with token=hunter2hunter2");
    loop {
        park();
    }
}

fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
    println!("serving");
    for stream in listener.incoming() {
        let mut stream = stream.expect("a client");
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    }
}

fn eat() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}
