"""`python -m appliance` is the program `nexus`."""

from appliance.cli.main import main

if __name__ == "__main__":
    main()
