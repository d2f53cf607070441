FROM Busy_Box:Tag:Two
