"""Child processes and signals: how a child is started, asked, killed, and ends with its parent.

`child` is the parent's side, `serving` the child's, `interrupts` what Ctrl-C does to either. A parent and a child
exchange JSON objects, one a line: requests on the child's stdin, answers on its stdout.
"""
