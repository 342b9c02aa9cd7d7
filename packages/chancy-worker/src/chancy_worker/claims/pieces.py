"""The hot path: one statement that writes the verdicts of finished attempts and claims more jobs.

    finished      jobs with a final verdict, fenced: a row that is not running under the fence given is left alone
    again         jobs that shall be ready again, by the same rule, and whether somebody has asked for their end:
    returned      the one kind is ready,
    dropped       and the other is cancelled
    ended         what is over,
    kept          in history, if it leaves a row,
    apart         and its result where that is kept for a shorter time
    in_use        which priorities each queue that is looked at has, by skipping through the index
    lanes         where to claim from: (queue, priority), from a high-water mark or from the start
    paused        queues and tasks of which nothing may begin now
    left_out      the tasks of which none may be claimed here and now; those that have no room are told apart, because
                  a queue in which nobody may be passed waits for them
    suspects      jobs that were running when a worker died, of those that were chosen: no others of their kind
    allowed       how many of each queue may be claimed: as many as are wanted, or less where an operator limits it
    chosen        for each queue as many as are wanted, in the order priority, run_at, id, up to so many bytes
    admitted      and of those that wait for a limit or a turn: the ones that may run, and come before the last chosen
    claimed       the chosen, as far as there is room beside those

There is no ORDER BY above the LATERAL: a sort would lock rows in every lane. The order is that of the nested
loop, which the worker's connections are set to. The lease is locked FOR KEY SHARE, so that no claim can commit in
the name of a worker that was declared dead meanwhile; but only where there is something to claim, so that a look that
finds nothing writes nothing.

`admitted` is in a form of its own, for rounds that have to do with gates: when a job with gates has ended, or when some
that are parked may run. What `admit` does is claimed by then, and is seen by nothing else here. `flow` is in a third
form, for a limit that is far from full: who waits for it is claimed as anybody else, by this worker's share of it. And
`following` is in a fourth, for rounds that do no more than hand slots on, each to the next who waits for the same limit
and for no other: these are claimed with all others, and no function is called for any of them.

A plan is made once a connection, often while the table is empty, and has to serve for a million rows, too. So the
rows to write are found one by one, LATERAL, and are addressed by ctid; the planner has no join of `job` with anything
whose order it could choose. (A DELETE … USING read the whole index of a table that was empty when it was planned.)
What belongs to a row is taken from the arrays by its position: each id is there once. For the same reason
`worker = …` says "running", which it is by the table's CHECK: the planner could take the index `job_running`
for the cheaper one.

A verdict matches the id, the fence and the lease of its claim. After a failover that has lost the last transactions
Postgres gives ids and fences out again, and the row of that id may be another job.

Nothing in here can be made to raise by what a row holds but for the claimed rows themselves: no arithmetic with
instants that may be infinite, and none comes back that Python could not read. A row that raises all the same is found
by `sifting`.
"""

from __future__ import annotations

FINISH = """
    WITH RECURSIVE finished AS (
        DELETE FROM {schema}.job AS job
        WHERE job.ctid = ANY (ARRAY(
            SELECT mine.ctid FROM unnest(%(done_ids)s::bigint[], %(done_fences)s::integer[]) AS sent (id, fence)
            CROSS JOIN LATERAL (
                SELECT job.ctid FROM {schema}.job AS job
                WHERE job.id = sent.id AND job.claims = sent.fence AND job.worker = %(under)s::bigint
                LIMIT 1 {lock}
            ) AS mine))
        RETURNING job.*, {done_nth} AS nth, {keep}
    ),
    again AS MATERIALIZED (
        SELECT mine.ctid, mine.cancel_at IS NOT NULL AS cancelled
        FROM unnest(%(again_ids)s::bigint[], %(again_fences)s::integer[]) AS sent (id, fence)
        CROSS JOIN LATERAL (
            SELECT job.ctid, job.cancel_at FROM {schema}.job AS job
            WHERE job.id = sent.id AND job.claims = sent.fence AND job.worker = %(under)s::bigint
            LIMIT 1 {lock}
        ) AS mine
    ),
    returned AS (
        UPDATE {schema}.job AS job
        SET state = 'ready', worker = NULL, progress = NULL, parked = job.gates->>'key',
            run_at = coalesce({schema}.clock() + (%(delays)s::interval[])[{nth}], job.run_at),
            attempt = job.attempt - (%(refunds)s::smallint[])[{nth}],
            errors = coalesce((%(again_errors)s::json[])[{nth}], job.errors),
            refused_at = CASE WHEN (%(refusals)s::smallint[])[{nth}] = 1
                THEN CASE WHEN {refused_of_late} THEN job.refused_at ELSE {schema}.clock() END END
        WHERE job.ctid = ANY (ARRAY(SELECT ctid FROM again WHERE NOT cancelled))
        RETURNING job.queue, job.id, job.claims, job.parked, job.gates, job.slots,
            (%(refusals)s::smallint[])[{nth}] = 1 AS refused
    ),
    dropped AS (
        DELETE FROM {schema}.job AS job WHERE job.ctid = ANY (ARRAY(SELECT ctid FROM again WHERE cancelled))
        RETURNING job.*, (%(again_errors)s::json[])[{nth}] AS news, {keep_cancelled}
    ),
    ended AS NOT MATERIALIZED (
        SELECT {moved}, (%(states)s::text[])[nth]::{schema}.state AS state, (%(results)s::json[])[nth] AS result,
            coalesce((%(done_errors)s::json[])[nth], errors) AS errors, keep
        FROM finished
        UNION ALL
        SELECT {moved}, 'cancelled', NULL, coalesce(news, errors), keep FROM dropped
    ),
    {kept},
    {apart},
"""
IN_USE = """in_use AS (
        SELECT look.queue, top.priority
        FROM unnest(%(looking)s::text[]) AS look (queue)
        CROSS JOIN LATERAL (
            SELECT job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = look.queue
            ORDER BY job.priority DESC LIMIT 1
        ) AS top
        UNION ALL
        SELECT upper.queue, below.priority
        FROM in_use AS upper
        CROSS JOIN LATERAL (
            SELECT job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = upper.queue
                AND job.priority < upper.priority
            ORDER BY job.priority DESC LIMIT 1
        ) AS below
    )"""
"""Of each of the queues `looking` the priorities in which anything is ready, entry by entry of an index: recursive."""
CLAIM = """
    settled AS MATERIALIZED (
        SELECT (SELECT count(*) FROM finished) + (SELECT count(*) FROM returned)
            + (SELECT count(*) FROM dropped) AS jobs
    ),
    {in_use},
    lanes AS (
        SELECT * FROM unnest(%(lane_queues)s::text[], %(lane_priorities)s::smallint[],
            %(mark_run_at)s::timestamptz[], %(mark_ids)s::bigint[]) AS marked (queue, priority, run_at, id)
        UNION ALL
        SELECT queue, priority, '-infinity', 0 FROM in_use
    ),
    {lease},
    {paused},
    {suspects}
    {allowed},
{chosen}    claimed AS (
        UPDATE {schema}.job AS job
        SET state = 'running', attempt = job.attempt + 1, claims = job.claims + 1,
            worker = %(worker)s::bigint, started_at = {schema}.clock(){slots}
        WHERE job.ctid = ANY (ARRAY(
            SELECT chosen.ctid
            FROM allowed AS want
            CROSS JOIN LATERAL (
                {first}
            ) AS chosen
            CROSS JOIN LATERAL (SELECT FROM lease WHERE chosen.ctid IS NOT NULL) AS held
            WHERE chosen.task <> ALL (%(full)s::text[]){within}
        ))
        RETURNING job.*
    ){handed_on}
    SELECT
        (SELECT jobs FROM settled),
        EXISTS (SELECT FROM {schema}.worker WHERE id = %(worker)s::bigint),
        ARRAY(SELECT queue FROM in_use), ARRAY(SELECT priority FROM in_use),
        ARRAY(SELECT (
            SELECT extract(epoch FROM least(job.run_at, {schema}.clock() + interval '1 day'))::float8
                - extract(epoch FROM {schema}.clock())::float8
            FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL
                AND job.queue = in_use.queue AND job.priority = in_use.priority AND job.run_at > {schema}.clock()
            ORDER BY job.run_at LIMIT 1) FROM in_use),
        ARRAY(SELECT look.queue FROM unnest(%(looking)s::text[]) AS look (queue) CROSS JOIN LATERAL (
            SELECT FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = look.queue LIMIT 1) AS parked),
        ARRAY(SELECT queue FROM allowed
              WHERE free < wanted
                  AND free <= (SELECT count(*) FROM claimed WHERE claimed.queue = allowed.queue){and_entered}),
        {answers},
        ARRAY(SELECT id FROM finished WHERE needed UNION ALL SELECT id FROM dropped WHERE needed),
        CASE WHEN EXISTS (SELECT FROM returned)
            THEN {schema}.ring(ARRAY(SELECT DISTINCT queue FROM returned))::text END,
        NULL::text, NULL::text, NULL::smallint, NULL::smallint, NULL::integer, NULL::smallint,
        NULL::json, NULL::json, NULL::json, NULL::json, NULL::text, NULL::bigint, NULL::smallint, NULL::timestamptz,
        NULL::float8, NULL::timestamptz, NULL::json, NULL::text, NULL::text
    UNION ALL
    SELECT id, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        task, queue, attempt, max_attempts, claims, crashes, {arguments}, retry, limits, {errors}, {key}, batch,
        priority, {run_at},
        CASE WHEN {refused_of_late} THEN extract(epoch FROM {schema}.clock() - job.refused_at)::float8 END,
        {submitted_at}, meta::json, {share}, {slot_at}
    FROM claimed AS job{entered}
"""
# Nobody has tried it for a while where all workers were away, or its queue was paused: then the time counts anew.
REFUSED_OF_LATE = "job.refused_at IS NOT NULL AND job.run_at > {schema}.clock() - interval '10 minutes'"

PLAIN_FIRST = """SELECT ready.ctid, ready.task{weighed}{place_of_ready}
                FROM lanes
                CROSS JOIN LATERAL (
                    {ready}
                ) AS ready
                WHERE lanes.queue = want.queue
                LIMIT want.free"""
READY = """SELECT job.ctid, job.task{weight}{place} FROM {schema}.job AS job
                    WHERE job.state = 'ready' AND job.parked IS NULL AND job.crashes = 0
                        AND job.queue = lanes.queue AND job.priority = lanes.priority
                        AND (job.run_at, job.id) > (lanes.run_at, lanes.id) AND job.run_at <= {schema}.clock()
                        AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
                        AND (want.in_line OR job.task <> ALL (%(full)s::text[]))
                    ORDER BY job.run_at, job.id
                    LIMIT want.free
                    FOR UPDATE SKIP LOCKED"""
SUSPECTS = """suspects AS MATERIALIZED (
        SELECT mine.place, mine.task, mine.queue, mine.priority, mine.run_at, mine.id{weight_of_mine}
        FROM unnest(%(suspects)s::bigint[], %(suspect_fences)s::integer[]) AS chosen (id, fence)
        CROSS JOIN LATERAL (
            SELECT job.ctid AS place, job.* FROM {schema}.job AS job
            WHERE job.id = chosen.id
            LIMIT 1
            FOR UPDATE SKIP LOCKED
        ) AS mine
        WHERE mine.state = 'ready' AND mine.parked IS NULL AND mine.crashes > 0 AND mine.claims = chosen.fence
            AND mine.run_at <= {schema}.clock() AND mine.task <> ALL ((SELECT tasks FROM left_out)::text[])
    ),"""
SUSPECTS_FIRST = """SELECT suspect.place AS ctid, suspect.task{bytes_of_suspect}{place_of_suspect}
                    FROM suspects AS suspect
                    WHERE suspect.queue = lanes.queue AND suspect.priority = lanes.priority
                    UNION ALL
                    SELECT plain.ctid, plain.task{bytes_of_plain}{place_of_plain} FROM ({ready}) AS plain"""

LEASE = """lease AS MATERIALIZED (
        SELECT id FROM {schema}.worker WHERE id = %(worker)s::bigint FOR KEY SHARE
    )"""
PAUSED = """paused AS MATERIALIZED (
        SELECT kind, name FROM {schema}.pause WHERE until > {schema}.clock()
    ),
    left_out AS MATERIALIZED (
        SELECT array_cat(%(without)s::text[], ARRAY(SELECT name FROM paused WHERE kind = 'task')) AS tasks
    )"""
ALLOWED = """allowed AS MATERIALIZED (
        SELECT want.queue, want.in_line, want.free AS wanted, want.bytes,
            CASE WHEN EXISTS (SELECT FROM {schema}.queue_limit) THEN {schema}.allowance(
                want.queue, want.free, %(worker)s::bigint,
                CASE {settled} WHEN %(sent)s::integer THEN want.keeps ELSE want.holds END, want.presses)
                ELSE want.free END AS free
        FROM unnest(%(queues)s::text[], %(free)s::integer[], %(in_line)s::boolean[], %(bytes)s::integer[],
            %(holds)s::integer[], %(keeps)s::integer[], %(presses)s::boolean[])
            AS want (queue, free, in_line, bytes, holds, keeps, presses)
        WHERE want.queue <> ALL (ARRAY(SELECT name FROM paused WHERE kind = 'queue'))
    )"""

CHOSEN = """    chosen AS MATERIALIZED (
        SELECT want.queue, first.*
        FROM allowed AS want
        CROSS JOIN LATERAL (
                {plain_first}
        ) AS first
    ),
"""
MARKED = """    mark AS MATERIALIZED (
        SELECT * FROM unnest(%(marked_queues)s::text[], %(marked_keys)s::text[], %(marked_lanes)s::smallint[],
            %(marked_run_at)s::timestamptz[], %(marked_ids)s::bigint[]) AS mark (queue, key, priority, run_at, id)
    ),
"""
ADMIT = (
    CHOSEN
    + """    ended_claim AS MATERIALIZED (
        SELECT queue, ROW(id, claims, parked, gates, slots, refused)::{schema}.leaving AS leaving
        FROM (
            SELECT queue, id, claims, parked, gates, slots, false AS refused FROM finished
            UNION ALL SELECT queue, id, claims, parked, gates, slots, refused FROM returned
            UNION ALL SELECT queue, id, claims, parked, gates, slots, false FROM dropped
        ) AS over
        WHERE slots IS NOT NULL
    ),
"""
    + MARKED
    + """    admitted AS MATERIALIZED (
        SELECT want.queue, answer.*
        FROM unnest(%(gated)s::text[], %(flows)s::boolean[], %(goes_round)s::boolean[], %(spots)s::text[],
            %(gated_bytes)s::integer[], %(gated_suspects)s::smallint[])
            AS want (queue, flows, goes_round, spot, bytes, suspects)
        CROSS JOIN LATERAL (
            SELECT want.queue IN (SELECT queue FROM allowed WHERE in_line) AS is_in_line
        ) AS line
        CROSS JOIN LATERAL {schema}.admit(
            ROW(%(worker)s::bigint, want.queue, {known},
                CASE WHEN line.is_in_line THEN (SELECT tasks FROM left_out)
                    ELSE array_cat((SELECT tasks FROM left_out), %(full)s::text[]) END,
                CASE WHEN line.is_in_line THEN %(full)s::text[] ELSE '{}' END, want.suspects, want.bytes, NULL,
                ARRAY(SELECT priority FROM chosen WHERE chosen.queue = want.queue),
                ARRAY(SELECT run_at FROM chosen WHERE chosen.queue = want.queue),
                ARRAY(SELECT id FROM chosen WHERE chosen.queue = want.queue),
                ARRAY(SELECT key FROM mark WHERE mark.queue = want.queue),
                ARRAY(SELECT priority FROM mark WHERE mark.queue = want.queue),
                ARRAY(SELECT run_at FROM mark WHERE mark.queue = want.queue),
                ARRAY(SELECT id FROM mark WHERE mark.queue = want.queue))::{schema}.claim,
            coalesce((SELECT free FROM allowed WHERE allowed.queue = want.queue), 0),
            want.flows, want.goes_round, want.spot,
            ARRAY(SELECT leaving FROM ended_claim WHERE ended_claim.queue = want.queue)
        ) AS answer
    ),
"""
)
KNOWN = "coalesce((SELECT tasks FROM {schema}.offer WHERE worker = %(worker)s::bigint), '{}')"
"""The tasks that this worker offers; none is any."""
BESIDE = """SELECT chosen.* FROM chosen WHERE chosen.queue = want.queue
                LIMIT want.free - coalesce((
                    SELECT CASE WHEN held_up THEN want.free ELSE cardinality(entered) END
                    FROM admitted WHERE admitted.queue = want.queue), 0)"""
AND_ENTERED = """ + coalesce(
                      (SELECT cardinality(entered) FROM admitted WHERE admitted.queue = allowed.queue), 0)"""
ENTERED = """
    UNION ALL
    SELECT id, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        task, queue, attempt, max_attempts, claims, crashes, job.arguments::json, retry, limits, job.errors, parked,
        batch, priority, {run_at},
        CASE WHEN {refused_of_late} THEN extract(epoch FROM {schema}.clock() - job.refused_at)::float8 END,
        {submitted_at}, meta::json, NULL, NULL
    FROM (SELECT job.* FROM admitted CROSS JOIN LATERAL unnest(admitted.entered) AS job) AS job"""
ANSWERS = """(SELECT json_agg(json_build_array(queue, cardinality(entered), stopped_at, next_in, more, again,
            CASE WHEN {schema}.is_one_limit(entered[1].parked) THEN entered[1].gates::text END, held_up))::text
        FROM admitted)"""
FLOW = """    flow AS MATERIALIZED (
        SELECT queue, {schema}.part_of(
            'gate', %(flow_key)s::text, (%(flow_gates)s::json->'gates'->0->>'most')::integer, '0', free,
            %(worker)s::bigint,
            CASE (SELECT jobs FROM settled) WHEN %(sent)s::integer THEN %(flow_keeps)s::integer
                ELSE %(flow_holds)s::integer END,
            true) AS free
        FROM allowed
        WHERE queue = %(flow_queue)s::text
    ),
    known AS MATERIALIZED (
        SELECT {known} AS tasks
    ),
"""
FLOWING = """SELECT ready.ctid, ready.task{weighed}
                FROM (
                    (SELECT ready.ctid, ready.task{bytes_of_ready}
                    FROM lanes
                    CROSS JOIN LATERAL (
                        {ready}
                    ) AS ready
                    WHERE lanes.queue = want.queue
                    LIMIT want.free)
                    UNION ALL
                    (SELECT ready.ctid, ready.task{bytes_of_ready}
                    FROM flow
                    CROSS JOIN unnest(
                        %(flow_lanes)s::smallint[], %(flow_run_at)s::timestamptz[], %(flow_ids)s::bigint[]
                    ) AS lane (priority, run_at, id)
                    CROSS JOIN LATERAL (
                        SELECT job.ctid, job.task{weight} FROM {schema}.job AS job
                        WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.crashes = 0
                            AND job.queue = want.queue AND job.priority = lane.priority
                            AND job.parked COLLATE "C" = %(flow_key)s::text
                            AND (job.run_at, job.id) > (lane.run_at, lane.id) AND job.run_at <= {schema}.clock()
                            AND job.gates::text = %(flow_gates)s::text
                            AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
                            AND job.task <> ALL (%(full)s::text[])
                            AND ((SELECT tasks FROM known) = '{}' OR job.task = ANY ((SELECT tasks FROM known)::text[]))
                        ORDER BY job.run_at, job.id
                        LIMIT flow.free
                        FOR UPDATE SKIP LOCKED
                    ) AS ready
                    WHERE flow.queue = want.queue
                    LIMIT (SELECT free FROM flow))
                ) AS ready
                LIMIT want.free"""
HAND_ON = (
    CHOSEN
    + """    left_slot AS MATERIALIZED (
        SELECT gone.queue, gone.parked, gone.gates::text AS gates, own.place, own.n
        FROM finished AS gone
        CROSS JOIN LATERAL (
            SELECT slot.ctid AS place, slot.n FROM {schema}.slot AS slot
            WHERE slot.ctid = (%(done_places)s::tid[])[gone.nth]
                AND slot.gate = gone.parked AND slot.n = gone.slots[1]
                AND slot.job = gone.id AND slot.fence = gone.claims
            UNION ALL
            SELECT slot.ctid, slot.n FROM {schema}.slot AS slot
            WHERE (%(done_places)s::tid[])[gone.nth] IS NULL
                AND slot.gate = gone.parked AND slot.n = gone.slots[1]
                AND slot.job = gone.id AND slot.fence = gone.claims
        ) AS own
        WHERE gone.slots IS NOT NULL
    ),
    vacant AS MATERIALIZED (
        SELECT gate.*
        FROM (
            SELECT queue, parked, gates, array_agg(place) AS places, array_agg(n) AS numbers
            FROM left_slot GROUP BY queue, parked, gates
        ) AS gate
        WHERE gate.queue <> ALL (ARRAY(SELECT queue FROM chosen))
            AND NOT EXISTS (
                SELECT FROM {schema}.slot AS slot
                WHERE slot.gate = gate.parked AND slot.n > (gate.gates::json->'gates'->0->>'most')::integer - (
                    SELECT coalesce(sum(share.most), 0)::integer FROM {schema}.share AS share
                    WHERE share.kind = 'gate' AND share.name = gate.parked))
    ),
"""
    + MARKED
    + """    lanes_of AS MATERIALIZED (
        SELECT queue, {schema}.parked_lanes(queue) AS priorities FROM allowed
    ),
    known AS MATERIALIZED (
        SELECT {known} AS tasks
    ),
    following AS MATERIALIZED (
        SELECT want.queue, next.*
        FROM allowed AS want
        CROSS JOIN LATERAL (
            SELECT one.*
            FROM vacant
            CROSS JOIN LATERAL (
                SELECT array_agg(job.place) AS places, array_agg(job.task) AS tasks, array_agg(job.id) AS jobs,
                    array_agg(job.claims) AS fences
                FROM (
                    SELECT job.*, bool_or(job.is_special) OVER (ROWS UNBOUNDED PRECEDING) AS is_behind
                    FROM (
                        SELECT mark.priority, mark.run_at, mark.id FROM mark
                        WHERE mark.queue = want.queue AND mark.key = vacant.parked
                        UNION ALL
                        SELECT lane.priority, '-infinity', 0
                        FROM unnest((SELECT priorities FROM lanes_of WHERE lanes_of.queue = want.queue))
                            AS lane (priority)
                        WHERE vacant.parked <> ALL (ARRAY(SELECT key FROM mark WHERE mark.queue = want.queue))
                    ) AS lane
                    CROSS JOIN LATERAL (
                        SELECT job.ctid AS place, job.id, job.claims, job.task, job.gates::text AS gates,
                            {schema}.weight(job.arguments, job.errors) > 0 AS is_special
                        FROM {schema}.job AS job
                        WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.crashes = 0
                            AND job.queue = want.queue AND job.priority = lane.priority
                            AND job.parked COLLATE "C" = vacant.parked
                            AND (job.run_at, job.id) > (lane.run_at, lane.id) AND job.run_at <= {schema}.clock()
                            AND job.task <> ALL ((SELECT tasks FROM left_out)::text[])
                            AND job.task <> ALL (%(full)s::text[])
                            AND ((SELECT tasks FROM known) = '{}' OR job.task = ANY ((SELECT tasks FROM known)::text[]))
                        ORDER BY job.run_at, job.id
                        LIMIT cardinality(vacant.numbers)
                        FOR UPDATE SKIP LOCKED
                    ) AS job
                    LIMIT cardinality(vacant.numbers)
                ) AS job
                WHERE job.gates = vacant.gates AND NOT job.is_behind
            ) AS first
            CROSS JOIN LATERAL unnest(
                first.places, first.tasks, first.jobs, first.fences,
                vacant.places[1:cardinality(first.jobs)], vacant.numbers[1:cardinality(first.jobs)]
            ) AS one (place, task, id, claims, slot, n)
            WHERE vacant.queue = want.queue
            LIMIT want.free
        ) AS next
    ),
    given AS MATERIALIZED (
        SELECT array_agg(id) AS jobs, array_agg(n) AS numbers FROM following
    ),
"""
)
FOLLOWING = """SELECT ready.ctid, ready.task{weighed}
                FROM (
                    SELECT chosen.ctid, chosen.task{bytes_of_chosen} FROM chosen WHERE chosen.queue = want.queue
                    UNION ALL
                    SELECT next.place, next.task{no_bytes} FROM following AS next WHERE next.queue = want.queue
                ) AS ready"""
GIVEN = """, slots = CASE WHEN job.parked IS NOT NULL THEN ARRAY[((SELECT numbers FROM given)::integer[])[
                array_position((SELECT jobs FROM given)::bigint[], job.id)]] END"""
HANDED_ON = """,
    taken AS MATERIALIZED (
        SELECT array_agg(slot) AS slots, array_agg(id) AS jobs, array_agg(claims + 1) AS fences FROM following
        WHERE id = ANY (ARRAY(SELECT id FROM claimed WHERE parked IS NOT NULL))
    ),
    handed_on AS (
        UPDATE {schema}.slot AS slot
        SET job = coalesce(((SELECT jobs FROM taken)::bigint[])[{nth_taken}], slot.job),
            fence = coalesce(((SELECT fences FROM taken)::integer[])[{nth_taken}], slot.fence),
            opens_at = CASE WHEN {nth_taken} IS NULL THEN '-infinity'::timestamptz END
        WHERE slot.ctid = ANY (ARRAY(SELECT place FROM left_slot))
        RETURNING slot.ctid AS place, slot.job, slot.opens_at IS NULL AS is_taken
    ),
    taken_at AS MATERIALIZED (
        SELECT array_agg(place) AS places, array_agg(job) AS jobs FROM handed_on WHERE is_taken
    ),
    over AS MATERIALIZED (
        SELECT gone.*, gone.slots > gone.admitted AND gone.admitted >= gone.free AND EXISTS (
            SELECT FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = gone.queue) AS tells
        FROM (
            SELECT gone.queue, count(*) AS slots,
                (SELECT count(*) FROM claimed WHERE claimed.queue = gone.queue AND parked IS NOT NULL) AS admitted,
                coalesce((SELECT free FROM allowed WHERE allowed.queue = gone.queue), 0) AS free
            FROM left_slot AS gone GROUP BY gone.queue
        ) AS gone
    )"""
SLOT_AT = """(((SELECT places FROM taken_at)::tid[])[
            array_position((SELECT jobs FROM taken_at)::bigint[], job.id)])::text"""
HANDED = """(SELECT json_agg(json_build_array(queue, admitted, NULL, NULL, slots > admitted AND free > 0,
            tells AND (SELECT count({schema}.ring(others.queue)::text) FROM over AS others WHERE others.tells) >= 0,
            (SELECT gates::text FROM claimed WHERE claimed.queue = over.queue AND parked IS NOT NULL LIMIT 1), false
        ))::text
        FROM over)"""
"""A slot is found by the place at which the claim that ends has left it, if that is known: by its number every version
of it is read that anybody's snapshot keeps, and there is one a job; idle workers that wait at the doorbell keep those
of two seconds. For the same reason no number is looked for but those that would be too many.

A slot that this statement takes from a claim needs no lock: nobody else touches it before that is over. To whom none
is given is free for anybody; and where there is no room for those who wait, others are told.
"""
