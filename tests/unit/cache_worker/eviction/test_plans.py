from cache_worker.eviction.plans import LOOK_READS, NEVER, Plan


def test_two_uses_ahead_are_known():
    plan = Plan(4)
    plan.extend([2, 0, 1])
    plan.extend([0, 2, 1])
    assert list(plan.due) == [1, 2, 0, NEVER]
    plan.read(2)
    assert list(plan.due) == [1, 2, 4, NEVER]
    plan.read(0)
    plan.read(0)
    assert plan.due[0] == NEVER
    plan.extend([0])
    assert plan.due[0] == 6


def test_who_reads_something_else_than_it_said_is_found_out():
    told, other = Plan(LOOK_READS), Plan(LOOK_READS)
    order = list(range(LOOK_READS))
    for plan in (told, other):
        plan.extend(order)
    for chunk in order:
        told.read(chunk)
        other.read(0)
    assert not told.is_wrong()
    assert other.is_wrong()


def test_a_little_out_of_order_is_in_order():
    plan = Plan(LOOK_READS)
    plan.extend(range(LOOK_READS))
    for chunk in range(0, LOOK_READS, 2):
        plan.read(chunk + 1)
        plan.read(chunk)
    assert not plan.is_wrong()
