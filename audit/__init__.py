"""Evidence: the event log, its verification, privacy accounting, ledger and reports. No torch anywhere."""
