"""`python -m benchmarks [NAME …]`."""

if __name__ == "__main__":  # a child process imports this module too, and needs nothing of it
    from benchmarks.cli import main

    main()
