"""`python -m service` runs the `ratelimit` command."""

from service.cli import main

if __name__ == "__main__":
    main()
