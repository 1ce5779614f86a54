"""From verdicts to what people read: figures, tables, numbers for the text, the paper and one HTML
page.

Nothing in this room decides anything: it is given the rows, the verdicts and the study, and shows
them. Everything it writes is byte-identical when written twice (no dates, fixed metadata, sorted
order), so that `report --check` can compare files instead of trusting them.
"""
