//! `cargo bench -p ravelin-policies`: the engine at 10 to 100,000 rules, beside a linear scan and Cedar. Prints one table.
//!
//! `-- --quick` stops at 1,000 rules; `-- --without-cedar` leaves that crate out, whose first build takes minutes. A
//! figure is the median CPU time of several passes on one warm core over 1,024 distinct calls in turn. Nothing is asserted but
//! that all engines give the answer that the workload was made for.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::format_collect,
    clippy::too_many_lines,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a person to run"
)]

mod linear;
mod workload;

#[path = "../tests/counting/mod.rs"]
mod counting;

mod table;

use std::collections::HashMap;
use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

use counting::counted;
use linear::Linear;
use ravelin_policies::{
    Connection, ConnectionPolicies, HttpCall, MeshSet, NormalizedPath, RequestIdentity, SourceFile,
    Workload, WorkloadPolicies, load,
};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde_json::json;
use table::Table;
use workload::{ISSUER, PlainCall};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];
const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);
/// Passes of one figure, and how long one takes at least.
const PASSES: usize = 11;
const PASS: Duration = Duration::from_millis(60);

const MESH: &str = "
apiVersion: ravelin.dev/v1
kind: MeshConfig
spec: {trustDomain: shop.example}
---
apiVersion: ravelin.dev/v1
kind: WorkloadIdentity
metadata: {name: payments, namespace: shop, labels: {app: payments}}
spec: {selectors: ['launch:name:payments']}
";

fn main() {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    // `cargo test` runs benchmarks as well, without this argument.
    if !has("--bench") {
        return;
    }
    let sizes = if has("--quick") {
        &SIZES[..2]
    } else {
        &SIZES[..]
    };
    let mut table = Table::new(sizes);
    for size in sizes {
        measure(*size, &mut table);
    }
    if has("--without-cedar") {
        println!("Cedar is left out.");
    } else {
        measure_cedar(sizes, &mut table);
    }
    println!("{}", machine());
    table.ratio(
        "linear / engine, allowed",
        "linear scan, allowed, ns",
        "allowed, ns",
    );
    table.ratio(
        "linear / engine, denied",
        "linear scan, denied, ns",
        "denied, ns",
    );
    table.ratio(
        "cedar / engine, allowed",
        "cedar, allowed, ns",
        "allowed, ns",
    );
    table.ratio("cedar / engine, denied", "cedar, denied, ns", "denied, ns");
    table.print();
}

fn measure(size: usize, table: &mut Table) {
    let rules = workload::rules(size);
    let files = files(&workload::to_yaml(&rules));
    let (set, taken) = counted(|| load(&files).unwrap());
    table.put(
        "memory of the set, bytes a rule",
        size,
        taken.kept as f64 / size as f64,
    );
    let workload =
        set.workload(&SpiffeId::parse("spiffe://shop.example/ns/shop/sa/payments").unwrap());
    let compile = || WorkloadPolicies::compile(&set, &workload, 7).unwrap();
    let (policies, taken) = counted(compile);
    table.put(
        "memory compiled, bytes a rule",
        size,
        taken.kept as f64 / size as f64,
    );
    table.put("compile, ms", size, millis(compile));
    table.put("load the YAML, ms", size, millis(|| load(&files).unwrap()));
    measure_change(&files, &policies, &workload, table, size);

    let naive = Linear::new(&rules);
    let allowed = workload::allowed_calls(size);
    let denied = workload::denied_calls(size);
    for (name, calls, want) in [("allowed", &allowed, true), ("denied", &denied, false)] {
        let prepared: Vec<Prepared> = calls
            .iter()
            .map(|call| Prepared::new(call, &policies))
            .collect();
        let https: Vec<HttpCall<'_>> = prepared.iter().map(Prepared::http).collect();
        for (call, plain) in https.iter().zip(calls) {
            let decision = policies.authorize_http(call);
            assert_eq!(decision.is_allowed, want, "{plain:?}: {decision}");
            assert_eq!(naive.decide(plain).0, want, "{plain:?}");
        }
        let connections = connections(&https, &policies);
        let on: Vec<(&ConnectionPolicies, HttpCall<'_>)> = https
            .iter()
            .map(|call| {
                let on = &connections[&call.connection.principal];
                let connection = on.connection();
                (
                    on,
                    HttpCall {
                        connection,
                        ..*call
                    },
                )
            })
            .collect();
        let ns = nanos(&on, |(on, call)| policies.authorize_http_on(on, call));
        table.put(&format!("{name}, ns"), size, ns);
        if !want {
            let explained = nanos(&on, |(on, call)| policies.explain_http_on(on, call));
            table.put("explaining a deny adds, ns", size, explained - ns);
        }
        table.put(
            &format!("judging a connection, once, {name}, ns"),
            size,
            nanos(&https, |call| policies.judge_connection(call.connection)),
        );
        table.put(
            &format!("{name}, with its connection, ns"),
            size,
            nanos(&https, |call| policies.authorize_http(call)),
        );
        let ((), taken) = counted(|| {
            for (on, call) in &on {
                black_box(policies.authorize_http_on(on, call));
                black_box(policies.authorize_http(call));
            }
        });
        table.put(
            &format!("heap allocations, {name}"),
            size,
            taken.allocations as f64 / https.len() as f64,
        );
        table.put(
            &format!("linear scan, {name}, ns"),
            size,
            nanos(calls, |call| naive.decide(call)),
        );
    }
    let paths: Vec<&str> = allowed.iter().map(|call| call.path.as_str()).collect();
    table.put(
        "normalizing the path (once a call), ns",
        size,
        nanos(&paths, |path| policies.normalize(path)),
    );
}

/// One connection a caller, as between two proxies.
fn connections(
    calls: &[HttpCall<'_>],
    policies: &WorkloadPolicies,
) -> HashMap<Option<SpiffeId>, ConnectionPolicies> {
    let mut connections = HashMap::new();
    for call in calls {
        connections
            .entry(call.connection.principal.clone())
            .or_insert_with(|| policies.judge_connection(call.connection));
    }
    connections
}

/// One value of one policy changes; the set is loaded, its policies are compiled on top of those that were there.
fn measure_change(
    files: &[SourceFile],
    policies: &WorkloadPolicies,
    workload: &Workload,
    table: &mut Table,
    size: usize,
) {
    let mut changed = files.to_vec();
    let file = &mut changed[1];
    file.content = file.content.replacen("/list-0", "/list-changed", 1);
    let set: MeshSet = load(&changed).unwrap();
    let change = || policies.recompile(&set, workload, 8).unwrap();
    table.put("change one policy, ms", size, millis(change));
}

/// A call in the form that the proxy hands in.
struct Prepared {
    connection: Connection,
    method: &'static str,
    path: NormalizedPath,
    headers: Vec<(String, String)>,
    identity: RequestIdentity,
}

impl Prepared {
    fn new(call: &PlainCall, policies: &WorkloadPolicies) -> Self {
        let identity = if call.groups.is_empty() {
            RequestIdentity::default()
        } else {
            let claims =
                json!({"iss": ISSUER, "sub": "alice", "aud": "payments", "groups": call.groups});
            RequestIdentity::of_claims(claims.as_object().unwrap().clone())
        };
        Self {
            connection: Connection {
                principal: Some(SpiffeId::parse(&format!("spiffe://{}", call.principal)).unwrap()),
                source_ip: [10, 1, 2, 3].into(),
                remote_ip: [10, 1, 2, 3].into(),
                destination_ip: [10, 9, 9, 9].into(),
                destination_port: 8080,
                sni: None,
            },
            method: call.method,
            path: policies.normalize(&call.path).unwrap(),
            headers: vec![
                ("user-agent".into(), "bench".into()),
                ("accept".into(), "*/*".into()),
            ],
            identity,
        }
    }

    fn http(&self) -> HttpCall<'_> {
        HttpCall {
            connection: &self.connection,
            method: self.method,
            host: "payments.shop:8080",
            path: &self.path,
            headers: &self.headers,
            identity: &self.identity,
            now: NOW,
        }
    }
}

/// Twenty policies a file.
fn files(policies: &[String]) -> Vec<SourceFile> {
    let mesh = SourceFile {
        path: "ravelin.yaml".into(),
        content: MESH.into(),
    };
    let chunks = policies.chunks(20).zip(1..);
    let others = chunks.map(|(chunk, number)| SourceFile {
        path: format!("policies/shop/{number}.yaml"),
        content: chunk.join("---\n"),
    });
    std::iter::once(mesh).chain(others).collect()
}

/// Seconds that this thread has run: what other programs of the machine take does not count, though they share its caches.
fn cpu_time() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// The median time of `work` on one of `calls`; where it is slow, on fewer of them, from everywhere.
fn nanos<C, T>(calls: &[C], work: impl Fn(&C) -> T) -> f64 {
    let round = |step: usize| {
        for call in calls.iter().step_by(step) {
            black_box(work(black_box(call)));
        }
    };
    let time = |step: usize, rounds: usize| {
        let started = cpu_time();
        (0..rounds).for_each(|_| round(step));
        cpu_time() - started
    };
    let whole = time(61, 1) * 61.0;
    // An odd step meets calls of every kind.
    let step = ((whole / (PASS * 4).as_secs_f64()) as usize | 1).min(61);
    let rounds = (PASS.as_secs_f64() / time(step, 1)).ceil().max(1.0) as usize;
    let made = rounds * calls.len().div_ceil(step);
    median(|| time(step, rounds) * 1e9 / made as f64)
}

/// The median time of the whole of `work`, without that of dropping what it made.
fn millis<T>(work: impl Fn() -> T) -> f64 {
    median(|| {
        let started = cpu_time();
        let made = black_box(work());
        let elapsed = cpu_time() - started;
        drop(made);
        elapsed * 1e3
    })
}

/// Of [`PASSES`] figures, or of fewer where one takes seconds.
fn median(figure: impl Fn() -> f64) -> f64 {
    let started = cpu_time();
    let mut figures = Vec::new();
    while figures.len() < PASSES
        && (figures.is_empty() || cpu_time() - started < (PASS * 80).as_secs_f64())
    {
        figures.push(figure());
    }
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Cedar, in a program of its own: see `benches/cedar/Cargo.toml`.
fn measure_cedar(sizes: &[usize], table: &mut Table) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/cedar");
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--release", "--manifest-path"])
        .arg(format!("{folder}/Cargo.toml"))
        .args([
            "--target-dir",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../target/cedar"),
            "--",
        ])
        .args(sizes.iter().map(ToString::to_string))
        .output();
    let text = match output {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        Ok(output) => {
            return println!(
                "Cedar did not run: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Err(error) => return println!("Cedar did not run: {error}"),
    };
    for line in text.lines() {
        let figures: Vec<f64> = line
            .split(' ')
            .map(|figure| figure.parse().unwrap())
            .collect();
        let names = [
            "cedar, parse the policies, ms",
            "cedar, allowed, ns",
            "cedar, denied, ns",
            "cedar, allowed, with request and entities made, ns",
            "cedar, denied, with request and entities made, ns",
            "cedar, heap allocations, allowed",
        ];
        for (name, figure) in names.iter().zip(&figures[1..]) {
            table.put(name, figures[0] as usize, *figure);
        }
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("an unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!(
        "{cores} cores of{}, load average {load} at the end (one is this program)\n",
        model.trim_start_matches(['\t', ':'])
    )
}
