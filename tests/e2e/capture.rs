//! Transparent capture on two hosts: a client and two servers that know nothing, each host with its proxy, rules by
//! `ravelin proxy capture`. The hosts are network namespaces of this test.

use std::path::{Path, PathBuf};
use std::process::Command;

use ravelin_tests::mesh_files::{MeshFolder, Workload};
use ravelin_tests::netns::{Host, Hosts};
use ravelin_tests::node::{Node, NodeOptions};
use ravelin_tests::process::Process;
use ravelin_tests::programs::{need, ravelin, run, run_ok};
use ravelin_tests::wait::{SOON, until_true};

/// The users of the two proxies: the agent knows them by these, and the rules exempt them.
const ORDERS_USER: u32 = 21_990;
const INVENTORY_USER: u32 = 21_991;
/// Nobody's.
const OTHER_USER: u32 = 21_992;

/// Debian's, which every user can run.
const PYTHON: &str = "/usr/bin/python3";

/// Port of the server that speaks HTTP, and of the one that speaks first.
const WEB: u16 = 8080;
const GREETER: u16 = 9000;

/// Prints what a client gets: `http URL` the status, `tcp HOST PORT` the greeting and the echo of one line.
const CLIENT: &str = r"
import socket, sys, urllib.request, urllib.error
kind, place = sys.argv[1], sys.argv[2]
try:
    if kind == 'http':
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        print(opener.open(place, timeout=10).status)
    else:
        peer = socket.create_connection((place, int(sys.argv[3])), 10)
        lines = peer.makefile('rwb')
        greeting = lines.readline().decode().strip()
        if not greeting:
            raise OSError('closed')
        lines.write(b'apples\n')
        lines.flush()
        print(greeting + '/' + lines.readline().decode().strip())
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print('refused')
except Exception as error:
    print(repr(error))
";

/// A server that speaks first, over both families.
const SERVER: &str = r"
import socket, socketserver, sys
class Greeter(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b'220 hello\n')
        self.wfile.write(self.rfile.readline())
class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
Server(('::', int(sys.argv[1])), Greeter).serve_forever()
";

struct Site {
    node: Node,
    hosts: Hosts,
    folder: PathBuf,
    _programs: Vec<Process>,
}

impl Site {
    async fn start() -> Option<Self> {
        let hosts = Hosts::start()?;
        if !need(PYTHON) {
            return None;
        }
        let node = Node::start(NodeOptions::default()).await;
        let folder = node.ca().folder().join("hosts");
        write_files(&folder, &node);
        node.admin().publish(mesh().messages()).await;
        let programs = start_programs(&hosts, &folder);
        let site = Self {
            node,
            hosts,
            folder,
            _programs: programs,
        };
        site.until_ready().await;
        Some(site)
    }

    async fn until_ready(&self) {
        for (host, name) in [
            (&self.hosts.first, "orders"),
            (&self.hosts.second, "inventory"),
        ] {
            let ready = "http://127.0.0.1:15000/readyz";
            until_true(&format!("the proxy of {name} is ready"), SOON, || async {
                self.client(host, &["http", ready]) == "200"
            })
            .await;
        }
        for (port, kind) in [(WEB, "http"), (GREETER, "tcp")] {
            until_true(&format!("the {kind} server listens"), SOON, || async {
                let listening = self
                    .hosts
                    .second
                    .run("ss", &["-Hltn", &format!("sport = :{port}")]);
                !listening.stdout.is_empty()
            })
            .await;
        }
    }

    /// What a client on `host` gets.
    fn client(&self, host: &Host, arguments: &[&str]) -> String {
        let mut command = host.command(Path::new(PYTHON));
        let output = run_ok(command.arg(self.folder.join("client.py")).args(arguments));
        output.trim().to_owned()
    }

    /// The same on the first host.
    fn call(&self, arguments: &[&str]) -> String {
        self.client(&self.hosts.first, arguments)
    }

    /// `ravelin proxy capture` for a proxy, on its host.
    fn capture(&self, host: &Host, name: &str, arguments: &[&str]) {
        let mut command = host.command(&ravelin());
        command
            .args(["proxy", "capture", "--config"])
            .arg(self.folder.join(format!("{name}.toml")))
            .args(arguments);
        run_ok(&mut command);
    }
}

/// Whether the proxy on `host` has counted a refusal with this code.
fn has_refused(host: &Host, code: &str) -> bool {
    let script = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:15000/metrics').read().decode())";
    let output = host.run(PYTHON, &["-c", script]);
    String::from_utf8_lossy(&output.stdout).contains(&format!("\"{code}\""))
}

fn write_files(folder: &Path, node: &Node) {
    let pages = folder.join("pages");
    std::fs::create_dir_all(pages.join("inventory")).unwrap();
    for page in ["inventory/apples", "secret"] {
        std::fs::write(pages.join(page), "some\n").unwrap();
    }
    std::fs::write(folder.join("client.py"), CLIENT).unwrap();
    std::fs::write(folder.join("server.py"), SERVER).unwrap();
    let captured = [
        ("orders", "outbound = true\n".to_owned()),
        (
            "inventory",
            format!(
                "inbound = 15006\n[[capture.workload_ports]]\nport = {WEB}\n[[capture.workload_ports]]\nport = {GREETER}\nprotocol = 'tcp'\n"
            ),
        ),
    ];
    for (name, capture) in captured {
        let text = format!(
            "name = '{name}'\nagent_socket = '{}'\nworkers = 1\nadmin = '127.0.0.1:15000'\n[capture]\n{capture}",
            node.socket().display()
        );
        std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
    }
    // WHY: the proxies are other users; they reach the agent's socket and this folder, and nothing else in there.
    run_ok(
        Command::new("chmod")
            .arg("755")
            .arg(node.ca().folder())
            .arg(folder),
    );
    std::fs::copy(ravelin(), folder.join("ravelin")).unwrap();
}

fn start_programs(hosts: &Hosts, folder: &Path) -> Vec<Process> {
    let (first, second) = (&hosts.first, &hosts.second);
    let proxy = |host: &Host, name: &str, user: u32| {
        let mut command = host.command_as(user, &folder.join("ravelin"));
        command
            .args(["proxy", "serve", "--config"])
            .arg(folder.join(format!("{name}.toml")));
        host.start(name, folder, &mut command)
    };
    let python = |name: &str, arguments: &[&str]| {
        let mut command = second.command_as(OTHER_USER, Path::new(PYTHON));
        command.args(arguments).current_dir(folder.join("pages"));
        second.start(name, folder, &mut command)
    };
    vec![
        proxy(first, "orders", ORDERS_USER),
        proxy(second, "inventory", INVENTORY_USER),
        python(
            "web",
            &["-m", "http.server", "--bind", "::", &WEB.to_string()],
        ),
        python("greeter", &["../server.py", &GREETER.to_string()]),
    ]
}

/// `inventory.shop` at virtual addresses and at the second host's own; a service that claims a metadata address.
fn mesh() -> MeshFolder {
    let service = |name: &str, addresses: &str, endpoints: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {name}\nspec:\n  hosts: [{name}.shop]\n  addresses: [{addresses}]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  subjectAltNames: ['spiffe://shop.example/ns/shop/sa/inventory']\n  ports:\n    - {{number: 80, name: http, protocol: HTTP, targetPort: {WEB}}}\n    - {{number: 25, name: tcp, protocol: TCP, targetPort: {GREETER}}}\n  endpoints:\n{endpoints}"
        )
    };
    let endpoint = |address: &str| format!("    - address: '{address}'\n");
    let workloads = [("orders", ORDERS_USER), ("inventory", INVENTORY_USER)]
        .map(|(name, user)| Workload::new(name, &[&format!("unix:uid:{user}")]));
    let mut folder = MeshFolder::new(&workloads)
        .with_allow("inventory", "orders", "[\"GET\"]", "[\"/inventory/*\"]")
        .with_allow_tcp("inventory", "orders", GREETER);
    folder.put(
        "services/shop/inventory.yaml",
        &service(
            "inventory",
            "10.99.0.1, 'fd99::1'",
            &(endpoint("10.77.0.2") + &endpoint("fd77::2")),
        ),
    );
    folder.put(
        "services/shop/metadata.yaml",
        &service(
            "metadata",
            "169.254.169.254, '224.0.1.1'",
            &endpoint("10.77.0.2"),
        ),
    );
    folder
}

const APPLES: &str = "/inventory/apples";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_55_two_hosts_whose_applications_know_nothing_are_captured_and_released() {
    let Some(site) = Site::start().await else {
        return;
    };
    let (first, second) = (&site.hosts.first, &site.hosts.second);
    let direct = [
        format!("http://10.77.0.2:{WEB}{APPLES}"),
        format!("http://[fd77::2]:{WEB}{APPLES}"),
    ];
    for url in &direct {
        assert_eq!(site.call(&["http", url]), "200", "before: {url}");
    }
    run_ok(
        second
            .command(Path::new("nft"))
            .args(["add", "table", "inet", "others"]),
    );

    let inventory_user = INVENTORY_USER.to_string();
    for _twice in 0..2 {
        site.capture(second, "inventory", &["--apply", "--user", &inventory_user]);
    }
    for url in &direct {
        assert_eq!(site.call(&["http", url]), "refused", "strict: {url}");
        assert_eq!(
            site.client(second, &["http", url]),
            "200",
            "the host's own: {url}"
        );
    }
    assert_eq!(
        site.call(&["http", "http://10.77.0.2:9000/"]),
        "refused",
        "strict, no greeting"
    );
    for listener in ["http://10.77.0.2:15006/", "http://[fd77::2]:15006/"] {
        assert_eq!(site.call(&["http", listener]), "refused", "{listener}");
    }
    assert!(has_refused(second, "plaintext_refused"));
    assert!(has_refused(second, "destination_itself"));

    let orders_user = ORDERS_USER.to_string();
    for _twice in 0..2 {
        site.capture(first, "orders", &["--apply", "--user", &orders_user]);
    }
    captured_calls(&site);
    a_user_that_is_exempt_gains_nothing(&site);
    the_wrong_user_makes_no_loop(&site);

    site.capture(first, "orders", &["--undo"]);
    site.capture(second, "inventory", &["--undo"]);
    site.capture(second, "inventory", &["--undo"]);
    for url in &direct {
        assert_eq!(site.call(&["http", url]), "200", "after: {url}");
    }
    let tables = |host: &Host| run_ok(host.command(Path::new("nft")).args(["list", "tables"]));
    assert_eq!(tables(first), "");
    assert_eq!(
        tables(second),
        "table inet others\n",
        "what is not ours stays"
    );
    drop(site.node);
}

/// With both hosts captured.
fn captured_calls(site: &Site) {
    let rows = [
        ("http://10.99.0.1/inventory/apples", "200"),
        ("http://[fd99::1]/inventory/apples", "200"),
        ("http://10.77.0.2:8080/inventory/apples", "200"),
        ("http://[fd77::2]:8080/inventory/apples", "200"),
        ("http://10.99.0.1/secret", "403"),
        ("http://[fd99::1]/secret", "403"),
        ("http://10.77.0.2:8080/secret", "403"),
        ("http://10.99.0.1:81/inventory/apples", "refused"),
        ("http://10.77.0.2:8081/", "refused"),
        ("http://10.77.0.2:15006/", "refused"),
        ("http://10.98.0.1/", "refused"),
        ("http://[fd98::1]/", "refused"),
        ("http://169.254.169.254/inventory/apples", "refused"),
        ("http://[fd00:ec2::254]/", "refused"),
        ("http://224.0.1.1/inventory/apples", "refused"),
    ];
    for (url, want) in rows {
        assert_eq!(site.call(&["http", url]), want, "{url}");
    }
    for (address, port) in [
        ("10.99.0.1", "25"),
        ("fd99::1", "25"),
        ("10.77.0.2", "9000"),
        ("fd77::2", "9000"),
    ] {
        let got = site.call(&["tcp", address, port]);
        assert_eq!(got, "220 hello/apples", "{address} {port}");
    }
    for code in ["unknown_destination", "destination_link_local"] {
        assert!(has_refused(&site.hosts.first, code), "{code}");
    }
}

/// Who runs as the proxy goes around the proxy of its own host, and still has to get past that of the other.
fn a_user_that_is_exempt_gains_nothing(site: &Site) {
    let mut command = site.hosts.first.command_as(ORDERS_USER, Path::new(PYTHON));
    let url = format!("http://10.77.0.2:{WEB}{APPLES}");
    let got = run_ok(
        command
            .arg(site.folder.join("client.py"))
            .args(["http", &url]),
    );
    assert_eq!(got.trim(), "refused");
}

/// Rules that exempt somebody else than the proxy lead its connections back to it.
fn the_wrong_user_makes_no_loop(site: &Site) {
    let first = &site.hosts.first;
    site.capture(
        first,
        "orders",
        &["--apply", "--user", &OTHER_USER.to_string()],
    );
    assert_eq!(
        site.call(&["tcp", "10.77.0.2", "9000"]),
        "refused",
        "{:?}",
        open(first)
    );
    assert!(has_refused(first, "capture_loop"));
    let orders_user = ORDERS_USER.to_string();
    site.capture(first, "orders", &["--apply", "--user", &orders_user]);
    assert_eq!(site.call(&["tcp", "10.77.0.2", "9000"]), "220 hello/apples");
}

fn open(host: &Host) -> String {
    let output = run(host.command(Path::new("ss")).args(["-Htn"]));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
