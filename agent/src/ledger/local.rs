//! What was said on the node itself: orders of an operator that are not carried out yet, and meta.

use std::collections::BTreeMap;
use std::sync::Arc;

use skerry_reconcile::Order;

use super::copies::Copy;
use super::store::State;
use super::{Ledger, LedgerError};

/// Names of the rows of `fact`.
const ORDERS: &str = "orders";
const META: &str = "meta";
/// Orders that may wait: a person gives them one by one.
const MOST: usize = 64;

/// Meta set on the node; none hides what the configuration says.
pub(crate) type LocalMeta = BTreeMap<String, Option<String>>;

impl Ledger {
    /// Orders that are not carried out yet.
    pub(crate) fn orders(&self) -> Arc<Vec<Order>> {
        self.views.orders.borrow().clone()
    }

    /// Changes when an order comes or is done.
    pub(crate) fn watch_orders(&self) -> tokio::sync::watch::Receiver<Arc<Vec<Order>>> {
        self.views.orders.clone()
    }

    /// Keeps an order; it is on the disk on return.
    pub(crate) async fn order(&self, order: Order) -> Result<(), LedgerError> {
        self.ask(move |s| s.change_orders(|orders| orders.push(order))).await
    }

    /// These were carried out.
    pub(crate) async fn orders_done(&self, done: Vec<u64>) -> Result<(), LedgerError> {
        self.ask(move |s| s.change_orders(|orders| orders.retain(|o| !done.contains(&o.id)))).await
    }

    /// Meta set on the node.
    pub(crate) async fn local_meta(&self) -> Result<LocalMeta, LedgerError> {
        self.ask(|s| s.local_meta()).await
    }

    /// Keeps meta set on the node.
    pub(crate) async fn set_local_meta(&self, meta: LocalMeta) -> Result<(), LedgerError> {
        self.ask(move |s| s.set_local_meta(&meta)).await
    }
}

impl State {
    pub(super) fn load_orders(&mut self) -> Result<(), LedgerError> {
        let orders = self.message::<Vec<Order>>(ORDERS)?.unwrap_or_default();
        self.orders.send_replace(Arc::new(orders));
        Ok(())
    }

    fn change_orders(&mut self, change: impl FnOnce(&mut Vec<Order>)) -> Result<(), LedgerError> {
        let before = self.orders.borrow().clone();
        let mut orders = before.as_ref().clone();
        change(&mut orders);
        orders.drain(..orders.len().saturating_sub(MOST));
        if orders != *before {
            self.put_message(ORDERS, &orders)?;
            self.orders.send_replace(Arc::new(orders));
        }
        Ok(())
    }

    fn local_meta(&mut self) -> Result<LocalMeta, LedgerError> {
        if let Some(meta) = self.message(META)? {
            return Ok(meta);
        }
        Ok(self.copies.get(Copy::Meta).and_then(|b| skerry_wire::cbor::decode(&b, Copy::META).ok()).unwrap_or_default())
    }

    fn set_local_meta(&mut self, meta: &LocalMeta) -> Result<(), LedgerError> {
        self.copies.put(Copy::Meta, &skerry_wire::cbor::encode(meta))?;
        self.put_message(META, meta)
    }
}
