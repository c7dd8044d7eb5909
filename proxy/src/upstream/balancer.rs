//! Which endpoint of a service takes the next call: in turn, passing over those that could not be dialled just now.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;

use crate::body::BodySource;
use crate::limits;
use crate::route::{Route, Routes};
use crate::upstream::dial::DialError;
use crate::upstream::{Answered, Pool, SendError, Target, retry};
use crate::worker::Worker;

/// One worker's connections to the endpoints of one route.
#[derive(Debug)]
pub struct Cluster {
    route: Arc<Route>,
    pools: Vec<Rc<Pool>>,
    next: Cell<usize>,
    outage: retry::Outage,
}

/// One line of the admin listener's `/clusters`.
#[derive(Clone, Debug)]
pub struct EndpointLine {
    /// `host:port` as declared.
    pub service: String,
    /// Inbound listener of the peer.
    pub endpoint: std::net::SocketAddr,
    /// A connection is open.
    pub is_connected: bool,
    /// The last dial failed just now.
    pub is_paused: bool,
}

/// All clusters of one worker, by route.
#[derive(Debug, Default)]
pub struct Clusters {
    by_route: RefCell<HashMap<usize, Rc<Cluster>>>,
}

impl Clusters {
    /// The cluster of `route`, made at its first use.
    pub fn of(&self, route: &Arc<Route>) -> Rc<Cluster> {
        let key = Arc::as_ptr(route).addr();
        let mut by_route = self.by_route.borrow_mut();
        if let Some(cluster) = by_route.get(&key) {
            return Rc::clone(cluster);
        }
        // WHY: two services at one endpoint with the same identities share its connection.
        let cluster = Cluster::new(route, &known(by_route.values()));
        by_route.insert(key, Rc::clone(&cluster));
        cluster
    }

    /// Follows a change of the routes: a cluster whose endpoints and identities stayed keeps its connections.
    pub fn adopt(&self, routes: &Routes) {
        let old = self.by_route.take();
        let known = known(old.values());
        let mut by_route = self.by_route.borrow_mut();
        for route in routes.all() {
            let is_used = route
                .endpoints
                .iter()
                .any(|endpoint| known.contains_key(&(*endpoint, Arc::clone(&route.expected))));
            if is_used {
                by_route.insert(Arc::as_ptr(route).addr(), Cluster::new(route, &known));
            }
        }
    }

    /// Lines for the admin listener, by service.
    pub fn lines(&self) -> Vec<EndpointLine> {
        let by_route = self.by_route.borrow();
        let of = |cluster: &Rc<Cluster>| {
            let service = cluster.route.service.clone();
            let line = move |pool: &Rc<Pool>| EndpointLine {
                service: service.clone(),
                endpoint: pool.address(),
                is_connected: !pool.is_empty(),
                is_paused: pool.is_paused(),
            };
            cluster.pools.iter().map(line).collect::<Vec<_>>()
        };
        let mut lines: Vec<EndpointLine> = by_route.values().flat_map(of).collect();
        lines.sort_by(|left, right| {
            (&left.service, left.endpoint).cmp(&(&right.service, right.endpoint))
        });
        lines
    }

    /// Drops connections that must not be used again.
    pub fn tidy(&self, generation: u64) {
        for cluster in self.by_route.borrow().values() {
            for pool in &cluster.pools {
                pool.tidy(generation);
            }
        }
    }
}

type Known = HashMap<
    (
        std::net::SocketAddr,
        Arc<[ravelin_proto::spiffe_id::SpiffeId]>,
    ),
    Rc<Pool>,
>;

fn known<'a>(clusters: impl Iterator<Item = &'a Rc<Cluster>>) -> Known {
    let mut known = Known::new();
    for cluster in clusters {
        for (endpoint, pool) in cluster.route.endpoints.iter().zip(&cluster.pools) {
            let key = (*endpoint, Arc::clone(&cluster.route.expected));
            known.insert(key, Rc::clone(pool));
        }
    }
    known
}

impl Cluster {
    fn new(route: &Arc<Route>, known: &Known) -> Rc<Self> {
        let pool = |endpoint: &std::net::SocketAddr| {
            let key = (*endpoint, Arc::clone(&route.expected));
            known.get(&key).cloned().unwrap_or_else(|| {
                Pool::new(Target::Peer {
                    address: *endpoint,
                    expected: Arc::clone(&route.expected),
                })
            })
        };
        Rc::new(Self {
            route: Arc::clone(route),
            pools: route.endpoints.iter().map(pool).collect(),
            next: Cell::new(0),
            outage: retry::Outage::default(),
        })
    }

    /// Sends a request to one endpoint, to another one where a dial fails; waits while all of them may be restarting.
    pub async fn send(
        &self,
        worker: &Rc<Worker>,
        head: &Parts,
        body: &Rc<BodySource>,
    ) -> Result<Answered, SendError> {
        let send = async || match self.send_to_one(worker, head, body).await {
            Err(SendError::Dial(error)) => Err(error),
            result => Ok(result),
        };
        let sent = self.outage.outlast(send).await;
        sent.unwrap_or_else(|error| Err(SendError::Dial(error)))
    }

    /// How long nobody has answered for this service.
    pub fn outage(&self) -> &retry::Outage {
        &self.outage
    }

    async fn send_to_one(
        &self,
        worker: &Rc<Worker>,
        head: &Parts,
        body: &Rc<BodySource>,
    ) -> Result<Answered, SendError> {
        let mut last = SendError::Dial(DialError::NoEndpoint);
        for pool in self.order() {
            match pool.send(worker, head, body).await {
                Err(SendError::Dial(error)) => {
                    tracing::warn!(service = %self.route.service, %error, "endpoint cannot be used");
                    last = SendError::Dial(error);
                }
                result => return result,
            }
        }
        Err(last)
    }

    /// Endpoints to try, the next in turn first, freshly failed ones last.
    pub fn order(&self) -> Vec<&Rc<Pool>> {
        let first = self.next.get();
        self.next.set(first.wrapping_add(1));
        let count = self.pools.len().max(1);
        let turned = self
            .pools
            .iter()
            .cycle()
            .skip(first % count)
            .take(self.pools.len());
        let (paused, mut ordered): (Vec<_>, Vec<_>) = turned.partition(|pool| pool.is_paused());
        ordered.extend(paused);
        ordered.truncate(limits::ENDPOINT_TRIES_MAX);
        ordered
    }
}
