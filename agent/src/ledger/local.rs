//! What was said on the node itself: orders of an operator that are not carried out yet, and meta.

use std::collections::BTreeMap;
use std::sync::Arc;

use skerry_reconcile::Order;

use super::copies::Copy;
use super::store::{State, put_numbered};
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
        let newest = self.newest_meta()?.map(|(_, bytes)| bytes).unwrap_or_default();
        Ok(skerry_wire::cbor::decode(&newest, Copy::META).unwrap_or_default())
    }

    fn set_local_meta(&mut self, meta: &LocalMeta) -> Result<(), LedgerError> {
        let number = self.newest_meta()?.map_or(0, |(number, _)| number).saturating_add(1);
        let bytes = skerry_wire::cbor::encode(meta);
        self.copies.put_numbered(Copy::Meta, number, &bytes)?;
        self.transact(|t| put_numbered(t, META, number, &bytes))
    }

    /// The newer of both copies, with its number. Where they are of one number, as those of an agent before this one, the row.
    fn newest_meta(&self) -> Result<Option<(u64, Vec<u8>)>, LedgerError> {
        let (row, copy) = (self.value_numbered(META)?, self.copies.get_numbered(Copy::Meta));
        let older = row.as_ref().zip(copy.as_ref()).is_none_or(|((row, _), (copy, _))| copy > row);
        Ok(if older { copy.or(row) } else { row })
    }
}
