"""What an operator runs beside the node: look at a data path, repair it, take over one of nsqd's."""
