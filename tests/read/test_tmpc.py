from tests.read.test_hostile import *
from collections import Counter
def test_c(readers):
    c=Counter()
    r=readers.everything()
    for S in (QUERIES, TESTS.map(lambda t: {"from":"deal","where":t})):
        @settings(max_examples=700)
        @given(S)
        def go(q):
            try: readers.go(r.page(q)); c["ok"]+=1
            except Invalid as e: c[e.faults[0].code if e.faults else e.code]+=1
        go(); print(c); c.clear()
