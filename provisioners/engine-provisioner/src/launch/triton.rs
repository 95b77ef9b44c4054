//! NVIDIA Triton. Source: `src/command_line_parser.cc`.

use super::flags::{Flag, Rule, ValueProblem};
use super::{Table, Value, When, line};

#[rustfmt::skip]
pub(super) const TABLE: Table = Table {
    lines: &[
        // The image's entry point is a shell that runs what it is given.
        line("", Value::Fixed("tritonserver"), When::Container),
        line("--model-repository", Value::Model, When::Always),
        line("--http-address", Value::Host, When::Always),
        line("--http-port", Value::Port, When::Always),
        line("--grpc-address", Value::Host, When::Always),
        line("--grpc-port", Value::GrpcPort, When::Always),
        line("--allow-grpc", Value::Fixed("false"), When::NoGrpc),
        line("--metrics-address", Value::Host, When::Always),
        line("--metrics-port", Value::MetricsPort, When::Always),
        line("--allow-metrics", Value::Fixed("false"), When::NoMetrics),
    ],
    flags: &[
        Flag { names: &["--model-repository", "--model-store"], has_value: true, rule: Rule::Owned("set the pool's `model`") },
        Flag { names: &["--http-address"], has_value: true, rule: Rule::Owned(LOOPBACK) },
        Flag { names: &["--http-port"], has_value: true, rule: Rule::Owned(PORTS) },
        Flag { names: &["--grpc-address"], has_value: true, rule: Rule::Owned(LOOPBACK) },
        Flag { names: &["--grpc-port"], has_value: true, rule: Rule::Owned(PORTS) },
        Flag { names: &["--allow-http"], has_value: true, rule: Rule::Owned(PORTS) },
        Flag { names: &["--allow-grpc"], has_value: true, rule: Rule::Owned(PORTS) },
        Flag { names: &["--allow-metrics"], has_value: true, rule: Rule::Owned(PORTS) },
        Flag { names: &["--metrics-address"], has_value: true, rule: Rule::Owned(LOOPBACK) },
        Flag { names: &["--metrics-port"], has_value: true, rule: Rule::Owned(PORTS) },
        Flag { names: &["--grpc-server-key"], has_value: true, rule: Rule::Owned(LOOPBACK) },
        Flag { names: &["--grpc-server-cert"], has_value: true, rule: Rule::Owned(LOOPBACK) },
        Flag { names: &["--model-load-gpu-limit"], has_value: true, rule: Rule::Value(gpu_limit) },
    ],
    sockets: None,
    variables: &[],
};

const LOOPBACK: &str = "leave it out; engines listen on loopback";
const PORTS: &str = "set `provisioning.ports`";

/// `<device>:<fraction>`; no part of a GPU is no GPU.
fn gpu_limit(value: &str) -> Result<String, ValueProblem> {
    let share = value.split_once(':').and_then(|(_, share)| share.parse::<f64>().ok());
    match share {
        Some(share) if share > 0.0 => Ok(value.to_owned()),
        Some(_) => Err(ValueProblem::Cpu("give a share greater than 0")),
        None => Err(ValueProblem::Senseless("wants `<device>:<fraction>`", "correct the pool's `flags`")),
    }
}
