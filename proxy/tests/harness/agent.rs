//! A stand-in for the agent: the `ProxyConfig` service on a Unix socket, with a configuration per proxy that the
//! test changes, and everything that the proxies send.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::pb::ravelin::v1::proxy_config_server::{ProxyConfig, ProxyConfigServer};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone)]
pub struct Agent {
    pub socket: PathBuf,
    inner: Arc<Inner>,
}

struct Inner {
    configs: Mutex<HashMap<String, watch::Sender<pb::ProxySnapshot>>>,
    decisions: watch::Sender<Vec<pb::Decision>>,
    acks: watch::Sender<Vec<pb::ProxyAck>>,
    lost: Mutex<u64>,
}

impl Agent {
    pub fn start(folder: &Path) -> Self {
        let socket = folder.join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let inner = Arc::new(Inner {
            configs: Mutex::default(),
            decisions: watch::Sender::default(),
            acks: watch::Sender::default(),
            lost: Mutex::default(),
        });
        let service = ProxyConfigServer::new(Service(Arc::clone(&inner)));
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Self { socket, inner }
    }

    pub fn set(&self, name: &str, snapshot: pb::ProxySnapshot) {
        let mut configs = self.inner.configs.lock().unwrap();
        match configs.get(name) {
            Some(config) => drop(config.send_replace(snapshot)),
            None => drop(configs.insert(name.to_owned(), watch::Sender::new(snapshot))),
        }
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut pb::ProxySnapshot)) {
        self.inner.configs.lock().unwrap()[name].send_modify(change);
    }

    /// Waits for an acknowledgement of `name` that `is_wanted`.
    pub async fn acked(
        &self,
        name: &str,
        is_wanted: impl Fn(&pb::ProxyAck) -> bool,
    ) -> pb::ProxyAck {
        let mut acks = self.inner.acks.subscribe();
        let found = |acks: &Vec<pb::ProxyAck>| {
            acks.iter()
                .rev()
                .find(|ack| ack.name == name && is_wanted(ack))
                .cloned()
        };
        let waited = tokio::time::timeout(
            Duration::from_secs(20),
            acks.wait_for(|acks| found(acks).is_some()),
        );
        let acks = waited
            .await
            .unwrap_or_else(|_| panic!("no such ack of {name}: {:?}", self.inner.acks.borrow()));
        found(&acks.unwrap()).unwrap()
    }

    pub fn forget_acks(&self) {
        self.inner.acks.send_replace(Vec::new());
    }

    /// Waits for a decision record that `is_wanted`.
    pub async fn decided(&self, is_wanted: impl Fn(&pb::Decision) -> bool) -> pb::Decision {
        let mut decisions = self.inner.decisions.subscribe();
        let found =
            |list: &Vec<pb::Decision>| list.iter().find(|decision| is_wanted(decision)).cloned();
        let waited = tokio::time::timeout(
            Duration::from_secs(20),
            decisions.wait_for(|list| found(list).is_some()),
        );
        let list = waited
            .await
            .unwrap_or_else(|_| panic!("no such decision: {:#?}", self.inner.decisions.borrow()));
        found(&list.unwrap()).unwrap()
    }

    pub fn decisions(&self) -> Vec<pb::Decision> {
        self.inner.decisions.borrow().clone()
    }

    pub fn lost(&self) -> u64 {
        *self.inner.lost.lock().unwrap()
    }
}

struct Service(Arc<Inner>);

#[tonic::async_trait]
impl ProxyConfig for Service {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<pb::ProxySnapshot, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<pb::ProxyRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        use pb::proxy_request::Step;
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.step);
        let Some(Step::Hello(hello)) = first else {
            return Err(Status::invalid_argument("hello first"));
        };
        let config = self.0.configs.lock().unwrap()[&hello.name].subscribe();
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                match request.step.unwrap() {
                    Step::Hello(_) => panic!("a second hello"),
                    Step::Ack(ack) => inner.acks.send_modify(|acks| acks.push(ack)),
                    Step::Decisions(batch) => {
                        *inner.lost.lock().unwrap() += batch.lost;
                        inner
                            .decisions
                            .send_modify(|list| list.extend(batch.decisions));
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(WatchStream::new(config).map(Ok))))
    }
}
