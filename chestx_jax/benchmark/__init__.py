"""What a step costs on this machine, beside the programs that people would use instead.

A `Job` is one measured thing. Each runs in a process of its own (`worker` for ours and transformers, `trl_worker` in
TRL's own environment), so that peaks of memory and threads are honest; `run` starts them and keeps what is done;
`report` makes the tables, `growth` the plot.
"""
