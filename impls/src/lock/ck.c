/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Functions around the inline locks of Concurrency Kit, which have no symbols of their own. ck.rs says
 * how large a word and a node are there; the assertions hold it to the headers.
 */

#include <ck_spinlock.h>
#include <stdint.h>

_Static_assert(sizeof(ck_spinlock_fas_t) <= sizeof(uint64_t), "a word of ck.rs");
_Static_assert(sizeof(ck_spinlock_ticket_t) <= sizeof(uint64_t), "a word of ck.rs");
_Static_assert(sizeof(ck_spinlock_mcs_context_t) <= 2 * sizeof(void *), "a node of ck.rs");
_Static_assert(sizeof(ck_spinlock_clh_t) <= 2 * sizeof(void *), "a node of ck.rs");

/* How far a waiter stays away for each place in front of it, as in the library's own benchmark. */
#define BACKOFF_SHIFT 5

void
cellbench_ck_fas_init(ck_spinlock_fas_t *lock)
{
	ck_spinlock_fas_init(lock);
}

void
cellbench_ck_fas_lock(ck_spinlock_fas_t *lock)
{
	ck_spinlock_fas_lock(lock);
}

void
cellbench_ck_fas_unlock(ck_spinlock_fas_t *lock)
{
	ck_spinlock_fas_unlock(lock);
}

bool
cellbench_ck_fas_locked(ck_spinlock_fas_t *lock)
{
	return ck_spinlock_fas_locked(lock);
}

void
cellbench_ck_ticket_init(ck_spinlock_ticket_t *lock)
{
	ck_spinlock_ticket_init(lock);
}

void
cellbench_ck_ticket_lock(ck_spinlock_ticket_t *lock)
{
	ck_spinlock_ticket_lock(lock);
}

void
cellbench_ck_ticket_lock_pb(ck_spinlock_ticket_t *lock)
{
	ck_spinlock_ticket_lock_pb(lock, BACKOFF_SHIFT);
}

void
cellbench_ck_ticket_unlock(ck_spinlock_ticket_t *lock)
{
	ck_spinlock_ticket_unlock(lock);
}

bool
cellbench_ck_ticket_locked(ck_spinlock_ticket_t *lock)
{
	return ck_spinlock_ticket_locked(lock);
}

void
cellbench_ck_mcs_init(ck_spinlock_mcs_t *lock)
{
	ck_spinlock_mcs_init(lock);
}

void
cellbench_ck_mcs_lock(ck_spinlock_mcs_t *lock, ck_spinlock_mcs_context_t *node)
{
	ck_spinlock_mcs_lock(lock, node);
}

void
cellbench_ck_mcs_unlock(ck_spinlock_mcs_t *lock, ck_spinlock_mcs_context_t *node)
{
	ck_spinlock_mcs_unlock(lock, node);
}

bool
cellbench_ck_mcs_locked(ck_spinlock_mcs_t *lock)
{
	return ck_spinlock_mcs_locked(lock);
}

void
cellbench_ck_clh_init(ck_spinlock_clh_t **lock, ck_spinlock_clh_t *unowned)
{
	ck_spinlock_clh_init(lock, unowned);
}

void
cellbench_ck_clh_lock(ck_spinlock_clh_t **lock, ck_spinlock_clh_t *node)
{
	ck_spinlock_clh_lock(lock, node);
}

/* Returns the node that the caller owns from now on. */
ck_spinlock_clh_t *
cellbench_ck_clh_unlock(ck_spinlock_clh_t *node)
{
	ck_spinlock_clh_unlock(&node);
	return node;
}

bool
cellbench_ck_clh_locked(ck_spinlock_clh_t **lock)
{
	return ck_spinlock_clh_locked(lock);
}
