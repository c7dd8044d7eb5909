//! What follows a 101: bytes in both directions, under the judgement of the call that they began with.
//!
//! A tunnel ends with either side, after a long silence, or at once when its call or one of its connections is no longer
//! allowed. A drain lets it run until the drain's deadline. Its record is written at its end.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode, response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::body::ProxyBody;
use crate::connections::LiveConnection;
use crate::limits;
use crate::live_calls::RegisteredCall;
use crate::open_call::OpenCall;
use crate::relay::{self, Carried, Ended};
use crate::upgrade;
use crate::upstream::Switched;
use crate::worker::Worker;

/// What the caller asked for, kept from its head.
#[derive(Debug)]
pub struct Asked {
    /// The protocol.
    pub protocol: HeaderValue,
    /// Its bytes, once the answer is through.
    pub upgraded: OnUpgrade,
    /// The caller speaks HTTP/2, and sent an extended CONNECT.
    pub is_http2: bool,
    /// `Sec-WebSocket-Key` as the caller sent it.
    pub key: Option<HeaderValue>,
}

impl Asked {
    /// What a checked head asks for; none where it is an ordinary call.
    pub fn take(head: &mut http::request::Parts) -> Option<Self> {
        let upgraded = head.extensions.remove::<OnUpgrade>()?;
        let protocol = upgrade::asked(head)?.clone();
        Some(Self {
            protocol,
            upgraded,
            is_http2: head.version == http::Version::HTTP_2,
            key: upgrade::key(head),
        })
    }
}

/// A tunnel between the caller's connection and an upstream one.
#[derive(Debug)]
pub struct Tunnel {
    /// The worker.
    pub worker: Rc<Worker>,
    /// `inbound` or `outbound`, for metrics.
    pub direction: &'static str,
    /// The caller's connection.
    pub connection: Rc<LiveConnection>,
    /// The record of the call.
    pub call: OpenCall,
    /// The judgement of the call; none where it is judged at the other end.
    pub live: Option<RegisteredCall>,
}

impl Tunnel {
    /// Begins the tunnel, and builds the caller's answer from the upstream's cleaned one.
    pub fn begin(
        mut self,
        asked: Asked,
        other: Switched,
        mut head: response::Parts,
    ) -> Response<ProxyBody> {
        upgrade::complete_accept(&asked.protocol, asked.key.as_ref(), &mut head.headers);
        head.headers.remove(header::CONTENT_LENGTH);
        head.extensions.clear();
        if asked.is_http2 {
            head.status = StatusCode::OK;
        } else {
            head.status = StatusCode::SWITCHING_PROTOCOLS;
            let upgrade = HeaderValue::from_static("upgrade");
            head.headers.insert(header::CONNECTION, upgrade);
            head.headers.insert(header::UPGRADE, asked.protocol);
        }
        self.call.switched();
        // INVARIANT: counted before the answer is out, when HTTP/1.1 lets go of the connections.
        let places = (
            self.connection.enter_tunnel(),
            other.live.as_ref().map(|live| live.enter_tunnel()),
        );
        tokio::task::spawn_local(async move {
            self.run(asked.upgraded, other).await;
            drop(places);
        });
        Response::from_parts(head, ProxyBody::Text(None::<Bytes>, None))
    }

    async fn run(mut self, caller: OnUpgrade, other: Switched) {
        let Switched {
            upgraded,
            live,
            place,
        } = other;
        let both = async { tokio::try_join!(caller, upgraded) };
        let both = tokio::select! {
            both = timeout(limits::SWITCH_DEADLINE, both) => both,
            code = self.cut(live.as_deref()) => return self.ended(Ended::Cut(code), Carried::default()),
        };
        let Ok(Ok((caller, other))) = both else {
            return self.ended(Ended::Failed, Carried::default());
        };
        let (caller, other): (TokioIo<Upgraded>, TokioIo<Upgraded>) =
            (TokioIo::new(caller), TokioIo::new(other));
        let (ended, carried) = relay::relay(caller, other, self.cut(live.as_deref()), None).await;
        drop(place);
        self.ended(ended, carried);
    }

    /// Why the tunnel has to end, once it has to.
    async fn cut(&self, upstream: Option<&LiveConnection>) -> &'static str {
        let upstream = async {
            match upstream {
                Some(upstream) => upstream.ended().await,
                None => std::future::pending().await,
            }
        };
        let call = async {
            match &self.live {
                Some(live) => live.cut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            code = self.connection.ended() => code,
            code = upstream => code,
            code = call => code,
        }
    }

    fn ended(&mut self, ended: Ended, carried: Carried) {
        self.call.carried(carried);
        match ended {
            Ended::Cut(code) => {
                self.worker.metrics().refused(self.direction, code);
                self.call.cut(code);
            }
            Ended::Completed | Ended::Failed | Ended::Idle => self.call.ended(ended.outcome()),
        }
    }
}

/// Says of a call that asked for a tunnel and got another answer what is left of it: none of its bytes may be read as a
/// further request, and an extended CONNECT must not look granted.
pub fn declined(asked: &Asked, head: &mut response::Parts) -> Result<(), Declined> {
    if asked.is_http2 {
        return if head.status.is_success() {
            Err(Declined)
        } else {
            Ok(())
        };
    }
    head.headers
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(())
}

/// The upstream answered in HTTP where HTTP/2 knows no such answer.
#[derive(Clone, Copy, Debug)]
pub struct Declined;
