# Run it with bin/soak, which says how.
Snex.Soak.main(System.argv())
