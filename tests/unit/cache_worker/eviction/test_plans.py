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


def test_ranks_read_at_the_same_time_each_in_its_own_order():
    plan = Plan(6)
    plan.extend([0, 1, 2])
    plan.extend([3, 4, 5], range(3))
    plan.ranks = 2
    assert [plan.reads_until(chunk) for chunk in range(6)] == [1, 2, 4, 1, 2, 4]
    plan.read(0)
    plan.read(3)
    assert plan.cursor == 1
    assert [plan.reads_until(chunk) for chunk in (1, 2, 4)] == [1, 2, 1]


def test_orders_may_come_in_any_order():
    plan = Plan(2)
    plan.extend([0, 1], [100, 101])
    plan.extend([1, 0], [50, 51])
    assert list(plan.due) == [51, 50]
    plan.reached(50)
    plan.read(1)
    plan.read(0)
    assert list(plan.due) == [100, 101]


def test_what_was_left_out_is_wanted_again_when_it_comes_again():
    plan = Plan(3)
    plan.extend([0, 1, 2])
    plan.extend([2, 1], [20_000, 20_001])
    plan.reached(19_990)
    assert plan.reads_until(0) == NEVER
    assert plan.reads_until(1) == 11
    plan.reached(5)  # never back
    assert plan.cursor == 19_990
