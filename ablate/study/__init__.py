"""The study room: a study file becomes cells, trials and hypotheses.

Read `source` (file and line numbers), `schema` (what a file may say), `checks` (what makes no
sense), `expand` (cells, trials, cohorts), `identity` (hashes), `contrast` and `hypotheses`
(claims), `aliasing` (what a fraction of the factorial can tell) and `cost` (how long it takes), in
this order.
"""
