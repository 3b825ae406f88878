-- The store of several replicas. A migration that was applied anywhere is never changed: add another.

CREATE TABLE executions (
    id          text COLLATE "C" PRIMARY KEY,
    entry_point text NOT NULL,
    state       text NOT NULL,
    -- The whole execution, as JSON.
    record      bytea NOT NULL,
    -- Milliseconds since the epoch of time less a minute for each level of priority: smaller comes first.
    rank        bigint NOT NULL,
    -- Milliseconds since the epoch of time before which it rests; 0 when it may go on.
    due         bigint NOT NULL,
    -- A branch waits for a person.
    asks        boolean NOT NULL,
    ended       timestamptz,
    -- Raised by each claim. A write under an older one is refused.
    claim_no    bigint NOT NULL DEFAULT 0,
    -- The replica that runs it, until its lease ends.
    claimed_by  text,
    lease_until timestamptz,
    -- Raised by each write under a claim, so that one whose answer was lost is not done twice.
    write_no    bigint NOT NULL DEFAULT 0,
    last_seq    bigint NOT NULL DEFAULT 0
);
CREATE INDEX executions_queued ON executions (entry_point, rank, id) WHERE ended IS NULL;
CREATE INDEX executions_claimed ON executions (lease_until) WHERE ended IS NULL AND claimed_by IS NOT NULL;
CREATE INDEX executions_due ON executions (due) WHERE ended IS NULL AND due > 0;
CREATE INDEX executions_ended ON executions (ended) WHERE ended IS NOT NULL;

-- What happened in an execution, as JSON, numbered from 1.
CREATE TABLE journal (
    execution text COLLATE "C" NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    seq       bigint NOT NULL,
    entry     bytea NOT NULL,
    PRIMARY KEY (execution, seq)
);

-- Idempotency keys of triggers, with the SHA-256 of their bodies.
CREATE TABLE keys (
    entry_point text NOT NULL,
    key         text NOT NULL,
    body        bytea NOT NULL,
    execution   text NOT NULL,
    created     timestamptz NOT NULL,
    PRIMARY KEY (entry_point, key)
);

-- The last tick of each timer, in milliseconds since the epoch of time.
CREATE TABLE ticks (
    entry_point text PRIMARY KEY,
    due         bigint NOT NULL,
    execution   text
);

-- What was used of a limit: tokens, steps or milliseconds of a day, or of an execution.
CREATE TABLE usage (
    key    text PRIMARY KEY,
    amount bigint NOT NULL
);

-- Executions accepted and failed, each in parts so that writers do not wait for one another.
CREATE TABLE counters (
    name  text NOT NULL,
    shard integer NOT NULL,
    value bigint NOT NULL,
    PRIMARY KEY (name, shard)
);

-- Definitions by their hash, for the executions that began with them.
CREATE TABLE definitions (
    hash text PRIMARY KEY,
    file text NOT NULL,
    text text NOT NULL
);

-- What the operator asked for last. Claims read it under a shared advisory lock, which accepting an epoch takes alone.
CREATE TABLE control (
    runtime_uid text PRIMARY KEY,
    epoch       bigint NOT NULL,
    desired     text NOT NULL
);

-- What is asked of an execution that runs in another replica.
CREATE TABLE orders (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    execution text NOT NULL,
    order_    text NOT NULL,
    taken     boolean NOT NULL DEFAULT false,
    answer    text,
    created   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX orders_open ON orders (execution) WHERE NOT taken;
