job "web" {
  type = "batch"
  periodic {
    crons = [
      "@reboot",
      "61 * * * *",
      "0 0 31 2 *",
      "0 3 * * * 2027",
      "0 3 * * * *",
      "* * *",
    ]
    time_zone    = "berlin"
    missed       = "all"
    unknown_time = "intervall"
    timezone     = "UTC"
  }
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
