"""Says how to get the first key, as the last line of `docker compose up`."""

import sys

sys.stdout.write(f"""
Memvault serves on http://{sys.argv[1]}  (docs: /docs, state: /readyz)

Get the first admin key, shown once:

  docker compose exec service memvault key create --tenant default --role admin

""")
