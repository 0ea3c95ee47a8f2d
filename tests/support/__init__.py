"""What tests share: a raw wire client, real daemons, a fake clock, and the replay of the golden exchanges."""
