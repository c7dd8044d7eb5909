//! `ravelin up` as a person runs it: a second one on its folder, Ctrl-C, and again.

use std::path::Path;
use std::process::Command;

use ravelin_tests::http_call::call_once;
use ravelin_tests::load::until_status;
use ravelin_tests::mesh_files::{Launch, MeshFolder, Workload};
use ravelin_tests::ports::free_address;
use ravelin_tests::process::Process;
use ravelin_tests::programs::{ravelin, run};
use ravelin_tests::site::{Ports, Site};
use ravelin_tests::wait::{CYCLE, SOON};

struct Mesh {
    folder: tempfile::TempDir,
    orders: Ports,
    ca_listen: String,
}

impl Mesh {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = [Ports::free(), Ports::free()];
        let workloads: Vec<Workload> = ["orders", "inventory"]
            .iter()
            .zip(ports)
            .map(|(name, ports)| {
                let mut workload = Workload::new(name, &[&format!("launch:name:{name}")]);
                workload.http = Some(ports.inbound);
                workload.launch = Some(Launch {
                    app: ports.app,
                    inbound: ports.inbound,
                    outbound: ports.outbound,
                });
                workload
            })
            .collect();
        MeshFolder::new(&workloads)
            .with_allow("inventory", "orders", "[\"GET\"]", "[\"/inventory/*\"]")
            .write(&folder.path().join("mesh"));
        Self {
            folder,
            orders: ports[0],
            ca_listen: free_address().to_string(),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn up(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(ravelin());
        command
            .args([
                "up",
                "mesh",
                "--data",
                "data",
                "--ca-listen",
                &self.ca_listen,
            ])
            .args(arguments)
            .current_dir(self.path());
        command
    }

    fn command(&self, arguments: &[&str]) -> std::process::Output {
        let server = format!("unix:{}", self.path().join("data/ca/admin.sock").display());
        run(Command::new(ravelin())
            .args(arguments)
            .env("RAVELIN_SERVER", server)
            .current_dir(self.path()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_that_is_up_refuses_a_second_up_ends_on_ctrl_c_and_comes_up_again() {
    let mesh = Mesh::new();
    let mut first = Process::start("up", mesh.path(), &mut mesh.up(&[]));
    until_status(mesh.orders.outbound, &Site::lookup(), 200, CYCLE).await;

    let second = run(&mut mesh.up(&["--exit"]));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(said.contains("in use"), "{said}");
    let answer = call_once(mesh.orders.outbound, &Site::lookup()).await;
    assert_eq!(answer.unwrap().status, 200);
    assert!(mesh.command(&["audit", "verify"]).status.success());

    first.interrupt();
    assert_eq!(first.wait(CYCLE).await.code(), Some(0), "{}", first.log());
    let answer = call_once(mesh.orders.outbound, &Site::lookup()).await;
    assert!(answer.is_err(), "a proxy is left over: {answer:?}");

    let again = run(&mut mesh.up(&["--exit"]));
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parts_of_a_mesh_end_with_an_up_that_is_killed() {
    let mesh = Mesh::new();
    let mut up = Process::start("up", mesh.path(), &mut mesh.up(&[]));
    until_status(mesh.orders.outbound, &Site::lookup(), 200, CYCLE).await;
    up.kill();
    ravelin_tests::wait::until_true("every part has ended", SOON, || async {
        call_once(mesh.orders.outbound, &Site::lookup())
            .await
            .is_err()
            && call_once(mesh.orders.inbound, &Site::lookup())
                .await
                .is_err()
            && call_once(mesh.orders.app, &Site::lookup()).await.is_err()
    })
    .await;
    let mut again = Process::start("up", mesh.path(), &mut mesh.up(&[]));
    until_status(mesh.orders.outbound, &Site::lookup(), 200, CYCLE).await;
    again.interrupt();
    assert_eq!(again.wait(CYCLE).await.code(), Some(0), "{}", again.log());
}
